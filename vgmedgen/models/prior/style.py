"""Style: how a picture is taken and lit, apart from where things are.

B batch, K maps, S style width, C feature channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

LOG_VARIANCE_RANGE = (-8.0, 4.0)  # keeps exp() finite whatever the weights
VARIANCE_FLOOR = 1e-5  # under the root of the pooled deviation


class StyleEncoder(nn.Module):
    """Variational encoder of colour, contrast and texture, seen through the maps.

    The convolutions run at half the image's resolution and their features are pooled to
    mean and deviation: enough for colour and texture, and blind to position.

    Shape:
        maps (B, K, H, W), image (B, 3, H, W) -> mean (B, S), log-variance (B, S)
    """

    def __init__(self, maps: int, width: int, channels: tuple[int, int]) -> None:
        super().__init__()
        first, second = channels
        self.features = nn.Sequential(
            nn.Conv2d(maps + 3, first, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(second, second, 3, padding=1),
        )
        self.to_moments = nn.Sequential(
            nn.Linear(2 * second + 3 * maps, 2 * second),
            nn.GELU(),
            nn.Linear(2 * second, 2 * width),
        )

    def forward(self, maps: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the style of `image`."""
        seen = functional.avg_pool2d(torch.cat((maps, image), 1), 2)
        features = self.features(seen).flatten(2)  # (B, C, h * w)
        spread = (features.var(2, unbiased=False) + VARIANCE_FLOOR).sqrt()
        pooled = torch.cat((features.mean(2), spread, map_colours(maps, image)), 1)
        mean, logvar = self.to_moments(pooled).chunk(2, 1)
        return mean, logvar.clamp(*LOG_VARIANCE_RANGE)


def map_colours(maps: Tensor, image: Tensor) -> Tensor:
    """Mean colour under every map, zero where a map is empty: (B, 3 * K)."""
    weights = maps.flatten(2)  # (B, K, H * W)
    sums = weights @ image.flatten(2).transpose(1, 2)  # (B, K, 3)
    # one pixel in the denominator lets the colour of a vanishing map fade out
    return (sums / (weights.sum(2, keepdim=True) + 1)).flatten(1)
