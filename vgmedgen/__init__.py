"""Federated, privacy-aware training of medical text-to-image diffusion."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Where diffusers finds the classes that a pipeline folder's model_index.json names; by
# name, so that importing the package imports none of them.
_CLASSES = {
    "HFFM": "vgmedgen.dit.hffm",
    "TextMapper": "vgmedgen.text.mapper",
    "VisualPrior": "vgmedgen.prior.model",
    "VGMedGenPipeline": "vgmedgen.synthesis.pipeline",
    # diffusers looks here for the base class as well, to know how to load the others
    "ModelMixin": "diffusers",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # the classes share no base
    if name not in _CLASSES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_CLASSES[name]), name)
