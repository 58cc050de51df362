"""The decoder: paints the maps in a style.

B batch, K maps, S style width, C feature channels.
"""

import math

from torch import Tensor, nn
from torch.nn import functional

BLOCKS = 3
NORM_GROUPS = 4  # fewer where the channels leave no choice


class StyledBlock(nn.Module):
    """Convolution and GroupNorm whose scale and shift come from the style (FiLM).

    Shape:
        features (B, C, h, w), style (B, S) -> (B, C', h, w)

    Source: Perez et al. 2018, FiLM, arXiv 1709.07871, equation 2.
    """

    def __init__(self, channels_in: int, channels: int, style: int) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm = nn.GroupNorm(
            math.gcd(NORM_GROUPS, channels), channels, affine=False
        )
        self.modulate = nn.Linear(style, 2 * channels)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        """The features, shaped by the style."""
        scale, shift = self.modulate(style)[:, :, None, None].chunk(2, 1)
        normed = self.norm(self.convolve(features))
        return functional.gelu(normed * (1 + scale) + shift)


class Decoder(nn.Module):
    """Image from maps and style; the maps alone cannot say a colour.

    Works at half the resolution, where four pixels' maps lie side by side as channels:
    a quarter of the cost, and no border is blurred.

    Shape:
        maps (B, K, H, W), style (B, S) -> image (B, 3, H, W) in [-1, 1]
    """

    def __init__(self, maps: int, style: int, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            StyledBlock(4 * maps if place == 0 else channels, channels, style)
            for place in range(BLOCKS)
        )
        self.paint = nn.Conv2d(channels, 4 * 3, 3, padding=1)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        """The picture of `maps` in `style`."""
        features = functional.pixel_unshuffle(maps, 2)
        for block in self.blocks:
            features = block(features, style)
        image: Tensor = functional.pixel_shuffle(self.paint(features), 2).tanh()
        return image
