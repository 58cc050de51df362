"""Federated, privacy-aware training of medical text-to-image diffusion.

`import vgmedgen` is all that plain diffusers needs to load the folder of a pipeline:

```python
import vgmedgen
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained(folder)
```
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_PIPELINE = "VGMedGenPipeline"
# Where diffusers finds the classes that a pipeline folder's model_index.json names; by
# name, so that importing the package imports none of them.
_CLASSES = {
    "HFFM": "vgmedgen.models.hffm",
    "TextMapper": "vgmedgen.models.text.mapper",
    "VisualPrior": "vgmedgen.models.prior.model",
    _PIPELINE: "vgmedgen.synthesis.pipeline",
    # diffusers looks here for the base class as well, to know how to load the others
    "ModelMixin": "diffusers",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # the classes share no base
    if name not in _CLASSES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_CLASSES[name]), name)


class _AfterDiffusers:
    """Import hook: once diffusers is imported, it knows our pipeline by name.

    diffusers looks among its own attributes for the pipeline class that a folder names.
    Importing it here to tell it would make every command line wait for it.
    """

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of diffusers as all others find it, with one thing to do after."""
        del path, target
        if name != "diffusers":
            return None
        sys.meta_path.remove(_AfterDiffusers)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_teach(module: ModuleType) -> None:
                run(module)
                _teach(sys.modules[name])  # diffusers puts another in its own place

            spec.loader.exec_module = run_and_teach  # type: ignore[method-assign]
        return spec


def _teach(diffusers: ModuleType) -> None:
    """Let `diffusers` find our pipeline, which is imported when it is asked for."""
    kind = type(diffusers)

    class Taught(kind):  # type: ignore[valid-type,misc]
        def __getattr__(self, name: str) -> Any:  # noqa: ANN401
            if name == _PIPELINE:
                return __getattr__(name)
            return super().__getattr__(name)

    diffusers.__class__ = Taught


if "diffusers" in sys.modules:
    _teach(sys.modules["diffusers"])
else:
    sys.meta_path.insert(0, _AfterDiffusers)
