"""Merge a release and its base into one folder that needs nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

from diffusers import PixArtTransformer2DModel

from vgmedgen.base import Bundle
from vgmedgen.files import write_text
from vgmedgen.models import lora
from vgmedgen.models.generator import forget_origin
from vgmedgen.models.hffm import HFFM
from vgmedgen.release.verify import MANIFEST
from vgmedgen.release.weights import ADAPTER, HFFM_ADAPTER, TEXT_MAPPER

# The visual prior is the base's, which is public: a site's own never leaves its run.
FROZEN_PARTS = ("vae", "scheduler", "text_encoder", "tokenizer", "visual_prior")


def merge(folder: Path, bundle: Bundle, release: Path) -> None:
    """Write a pipeline folder, as `VGMedGenPipeline.from_pretrained` reads it.

    Args:
        folder: is made.
        bundle: the base that the release was made for.
        release: rebuilt here, so that its configs are this site's own.
    """
    folder.mkdir()
    for part in FROZEN_PARTS:
        shutil.copytree(bundle.part(part), folder / part)
    shutil.copytree(release / TEXT_MAPPER, folder / "text_mapper")
    hffm = HFFM.from_pretrained(bundle.part("hffm"), use_safetensors=True)
    if (release / HFFM_ADAPTER).is_dir():
        hffm = lora.merge_adapter(hffm, release / HFFM_ADAPTER)
    forget_origin(hffm)
    hffm.save_pretrained(folder / "hffm")
    plain = PixArtTransformer2DModel.from_pretrained(
        bundle.part("transformer"), use_safetensors=True
    )
    lora.merge_adapter(plain, release / ADAPTER).save_pretrained(folder / "transformer")
    shutil.copy(release / MANIFEST, folder / "release.json")
    write_text(folder / "model_index.json", json.dumps(_index(folder), indent=2))


def _index(folder: Path) -> dict[str, Any]:
    """The parts of the pipeline, as diffusers' loader reads them."""
    encoder = json.loads(
        (folder / "text_encoder" / "config.json").read_text(encoding="utf-8")
    )
    words = json.loads(
        (folder / "tokenizer" / "tokenizer_config.json").read_text(encoding="utf-8")
    )
    return {
        "_class_name": "VGMedGenPipeline",
        "hffm": ["vgmedgen", "HFFM"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", encoder["architectures"][0]],
        "text_mapper": ["vgmedgen", "TextMapper"],
        "tokenizer": ["transformers", words["tokenizer_class"]],
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "visual_prior": ["vgmedgen", "VisualPrior"],
    }
