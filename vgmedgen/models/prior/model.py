"""The visual prior: an image as anatomy (where, what shape) and style (how it looks).

B batch, K maps, G grid side, A anatomy width, S style width.

Source: VG-MedGen, arXiv 2603.10519, with SDNet (Chartsias et al. 2019, arXiv 1903.09467)
behind it. Other than there, the anatomy vector keeps positions, and evaluation draws
nothing at random.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn import functional

from vgmedgen.config.run import ModelConfig
from vgmedgen.models.prior.axes import principal_axes, random_axes
from vgmedgen.models.prior.decoder import Decoder
from vgmedgen.models.prior.style import StyleEncoder

SURE_LOGIT = 3.0  # of the mask head at the start
LESION_SHARE = 4  # one map in so many starts as lesion
FLAT_VARIANCE = (
    1e-2  # a colour channel that varies less is not stretched to unit variance
)
NORM_GROUPS = 8  # fewer where the channels leave no choice


@dataclass(frozen=True)
class PriorOutput:
    """What the prior sees in a batch of images."""

    maps: Tensor  # (B, K, H, W), one-hot over K
    anatomy: Tensor  # (B, A)
    style: Tensor  # (B, S), drawn where noise was given, else the mean
    style_mean: Tensor  # (B, S)
    style_logvar: Tensor  # (B, S)
    reconstruction: Tensor  # (B, 3, H, W) in [-1, 1]
    mask_logits: Tensor  # (B, 1, H, W)


class VisualPrior(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Anatomy encoder, style encoder, decoder and segmentation head.

    Fully convolutional; image sides must be multiples of the U-Net's total stride.

    Args:
        channels: U-Net widths, finest first; each further one halves the resolution.
        maps: K.
        anatomy: A.
        style: S.
        grid: G, side of the grid that the maps are pooled to.
        pooling: `grid`, or `area`: each map's share of the image and nothing else.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 48, 64),
        maps: int = 8,
        anatomy: int = 64,
        style: int = 64,
        grid: int = 8,
        pooling: str = "grid",
    ) -> None:
        super().__init__()
        self.map_net = UNet(
            spatial_dims=2,
            in_channels=3,
            out_channels=maps,
            channels=tuple(channels),
            strides=(2,) * (len(channels) - 1),
            num_res_units=1,  # after upsampling, too, where it smooths the lattice
            act="LEAKYRELU",
            norm=("GROUP", {"num_groups": math.gcd(NORM_GROUPS, *channels)}),
        )
        self.mask_head = _mask_head(maps)
        self.style_encoder = StyleEncoder(maps, style, (channels[0], channels[1]))
        self.decoder = Decoder(maps, style, channels[1])
        side = 1 if pooling == "area" else grid
        features = maps * side * side
        # buffers: fitted once on public images, equal at every site, never trained
        self.register_buffer("anatomy_centre", torch.full((features,), 1 / maps))
        axes = random_axes(features, anatomy, torch.default_generator)
        self.register_buffer("anatomy_axes", axes)

    @classmethod
    def of(cls, model_config: ModelConfig, seed: int) -> "VisualPrior":
        """A fresh prior of the configured sizes; the same for the same seed."""
        return cls._seeded(
            seed,
            channels=model_config.prior_channels,
            maps=model_config.maps,
            anatomy=model_config.anatomy,
            style=model_config.style,
            grid=model_config.grid,
            pooling=model_config.pooling,
        )

    @classmethod
    def like(cls, other: "VisualPrior", seed: int) -> "VisualPrior":
        """A fresh prior of another one's sizes; shares no weights and no axes with it."""
        sizes = ("channels", "maps", "anatomy", "style", "grid", "pooling")
        return cls._seeded(seed, **{name: other.config[name] for name in sizes})

    @classmethod
    def _seeded(cls, seed: int, **sizes: Any) -> "VisualPrior":  # noqa: ANN401
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            prior: VisualPrior = cls(**sizes)
        return prior

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> "VisualPrior":  # noqa: ANN401
        """Read `config.json` and safetensors from `folder`; pickled weights are refused."""
        options |= {"use_safetensors": True, "local_files_only": True}
        prior: VisualPrior = super().from_pretrained(folder, **options)
        return prior

    def forward(self, image: Tensor, noise: Tensor | None = None) -> PriorOutput:
        """Everything the prior says about images.

        Args:
            image: (B, 3, H, W) in [-1, 1].
            noise: (B, S), standard normal, with which the style is drawn; without it the
                style is its mean, and two passes agree.
        """
        maps = self.see_maps(image)
        mean, logvar = self.style_encoder(maps, image)
        style = mean if noise is None else mean + (logvar / 2).exp() * noise
        return PriorOutput(
            maps=maps,
            anatomy=self.anatomy_of(maps),
            style=style,
            style_mean=mean,
            style_logvar=logvar,
            reconstruction=self.decoder(maps, style),
            mask_logits=self.mask_head(maps),
        )

    def see_maps(self, image: Tensor) -> Tensor:
        """One-hot maps (B, K, H, W) of images (B, 3, H, W); the gradient passes through.

        The forward value is the arg max both in training and at evaluation. The gradient
        is that of the soft maps (Bengio et al. 2013, arXiv 1308.3432, straight-through).
        """
        level = functional.instance_norm(image, eps=FLAT_VARIANCE)
        soft = self.map_net(level).softmax(1)
        hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
        return hard + soft - soft.detach() if self.training else hard

    def pool(self, maps: Tensor) -> Tensor:
        """Share of each map in each cell of the grid: (B, K * G * G), or (B, K)."""
        side = 1 if self.config.pooling == "area" else self.config.grid
        return functional.adaptive_avg_pool2d(maps, side).flatten(1)

    def anatomy_of(self, maps: Tensor) -> Tensor:
        """Anatomy vectors (B, A) of maps (B, K, H, W)."""
        vectors: Tensor = (self.pool(maps) - self.anatomy_centre) @ self.anatomy_axes
        return vectors

    def fit_axes(self, pooled: Tensor) -> None:
        """Fit the anatomy axes to what `pool` gave for public images, (N, K * G * G).

        Afterwards the anatomy vectors of these images have mean zero and unit mean
        square; see `principal_axes`.

        Raises:
            ValueError: if the pooled maps do not vary at all.
        """
        centre, axes = principal_axes(pooled, self.config.anatomy)
        self.anatomy_centre.copy_(centre)
        self.anatomy_axes.copy_(axes)


def _mask_head(maps: int) -> nn.Conv2d:
    """Mask logit of each map, so that it is the maps that must know the lesion.

    It reads them pixel by pixel and starts sure of the first ones: weights near zero
    would give Dice next to no gradient for hundreds of steps.
    """
    head = nn.Conv2d(maps, 1, 1, bias=False)
    sure = torch.full((1, maps, 1, 1), -SURE_LOGIT)
    sure[:, : max(1, maps // LESION_SHARE)] = SURE_LOGIT
    with torch.no_grad():
        head.weight.copy_(sure)
    return head
