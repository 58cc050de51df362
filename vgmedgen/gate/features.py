"""What an encoder sees in an image: near features mean images that look alike.

`base` takes the encoders of the base bundle: the VAE's latents, with each channel's mean
and scale taken off so that a change of tint or contrast hides nothing, next to the prior's
anatomy vector. A site may name the folder of a vision model of its own instead.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional

from vgmedgen.base import Bundle
from vgmedgen.config.ranges import digest_of
from vgmedgen.errors import ConfigError
from vgmedgen.files import tree_digests
from vgmedgen.models.codec import Codec
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.training.align import device_of
from vgmedgen.training.loop import parts

BASE = "base"
BATCH = 64  # images encoded together
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation, RGB


class Extractor(Protocol):
    """Turns images (N, 3, H, W) in [-1, 1] into features (N, F)."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Features of images, on the CPU."""


class Describer:
    """What the base's encoders see in an image, free of tint and contrast.

    Args:
        codec: the base's VAE.
        prior: the base's visual prior.
    """

    def __init__(self, codec: Codec, prior: VisualPrior) -> None:
        self.codec, self.prior = codec, prior.eval()

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Features (N, F) of images (N, 3, H, W) in [-1, 1]; both parts weigh alike."""
        found = []
        for rows in parts(len(pixels), BATCH):
            image = pixels[rows].to(device_of(self.codec))
            latents = functional.instance_norm(self.codec.encode(image)).flatten(1)
            maps = self.prior.see_maps(image.to(device_of(self.prior)))
            anatomy = self.prior.anatomy_of(maps)
            unit = [
                functional.normalize(part.cpu(), dim=1) for part in (latents, anatomy)
            ]
            found.append(torch.cat(unit, dim=1))
        return torch.cat(found)


class VisionModel:
    """A vision model in the layout of transformers, read from a folder, never fetched.

    Args:
        folder: holds config.json and safetensors, and preprocessor_config.json where
            the model wants other colour levels than ImageNet's.
        device: where it computes.

    Raises:
        ConfigError: if the folder holds no such model.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import AutoImageProcessor, AutoModel  # noqa: PLC0415

        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            model, told = AutoModel.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **options
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise _unreadable(folder, str(error)) from None
        # what the file lacks was drawn at random; only the pooler is never asked
        lacking = sorted(key for key in told["missing_keys"] if "pooler" not in key)
        if lacking or told["mismatched_keys"]:
            raise _unreadable(folder, f"weights are missing: {lacking[:2]}")
        model = getattr(model, "vision_model", model)  # of a pair with a text encoder
        self.model = model.to(device).eval().requires_grad_(requires_grad=False)
        self.px = _side(model.config)
        mean, deviation = IMAGENET
        if (folder / "preprocessor_config.json").is_file():
            chosen = AutoImageProcessor.from_pretrained(folder, **options)
            mean = getattr(chosen, "image_mean", None) or mean
            deviation = getattr(chosen, "image_std", None) or deviation
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.deviation = torch.tensor(deviation).view(1, 3, 1, 1)
        try:
            self(torch.zeros(1, 3, self.px, self.px))
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise _unreadable(folder, f"it takes no colour image: {error}") from None

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Features (N, F) of unit length: the mean over the model's last tokens."""
        found = []
        for rows in parts(len(pixels), BATCH):
            image = functional.interpolate(
                pixels[rows], (self.px, self.px), mode="bicubic", antialias=True
            ).clamp(-1, 1)
            level = ((image + 1) / 2 - self.mean) / self.deviation
            seen = self.model(pixel_values=level.to(device_of(self.model)))
            last = seen.last_hidden_state  # (B, T, F) of tokens, (B, F, h, w) of a grid
            pooled = last.mean(1) if last.ndim == 3 else last.mean((2, 3))  # noqa: PLR2004
            found.append(functional.normalize(pooled.cpu(), dim=1))
        return torch.cat(found)


def extractor(
    named: str, folder: Path, bundle: Bundle, device: torch.device
) -> tuple[Extractor, str]:
    """The extractor that a site names, and a digest of every weight in it.

    Args:
        named: `base`, or a folder; a relative one begins at the site's own.
        folder: of the site.
        bundle: the base.
        device: where it computes.

    Raises:
        ConfigError: if the folder holds no vision model.
    """
    if named == BASE:
        codec = Codec.load(bundle.part("vae")).to(device)
        prior = VisualPrior.from_pretrained(bundle.part("visual_prior")).to(device)
        return Describer(codec, prior), bundle.digest
    where = (folder / named).resolve()
    if not (where / "config.json").is_file():
        raise ConfigError(
            f"gate.features: there is no model in {where} (no config.json); name the "
            f"folder of a vision model, or {BASE}"
        )
    return VisionModel(where, device), digest_of(
        tree_digests(where, leave_out=frozenset())
    )


def _unreadable(folder: Path, why: str) -> ConfigError:
    told = " ".join(why.split())[:200]
    return ConfigError(
        f"gate.features: {folder} holds no vision model that can be read ({told}); name "
        f"a folder with config.json and model.safetensors, or {BASE}"
    )


def _side(config: Any) -> int:  # noqa: ANN401
    size = getattr(config, "image_size", 224)
    if isinstance(size, Sequence):
        size = size[0]
    return int(size)
