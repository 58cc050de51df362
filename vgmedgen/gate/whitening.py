"""Whitening: a picture's details of all sizes, each as strong as the others.

N pictures.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SIDE = 64  # px, in which structure is compared; sketches have half of it
RADIUS = 6  # px of `SIDE`, in which local contrast is measured
LIMIT = 3.0  # of local contrast, beyond which a detail weighs no more
PART = 256  # pictures dealt with together
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
TURNS = 8  # of a square onto itself


def grey(pixels: Tensor) -> Tensor:
    """Luminance (N, H, W), 0 to 255, of images (N, 3, H, W) in [-1, 1]."""
    weights = torch.tensor(LUMINANCE)
    return (torch.einsum("nchw,c->nhw", pixels.float().cpu(), weights) + 1) * 127.5


def resized(picture: Tensor, side: int) -> Tensor:
    """Pictures (N, H, W) as (N, side, side), without aliasing."""
    if picture.shape[-2:] == (side, side):
        return picture
    found: Tensor = functional.interpolate(
        picture[:, None], (side, side), mode="bilinear", antialias=True
    )
    return found[:, 0]


def resized_parts(pictures: Tensor, side: int) -> Tensor:
    """The same, a part at a time."""
    return torch.cat([resized(part, side) for part in torch.split(pictures, PART)])


def turned(pictures: Tensor) -> Tensor:
    """All turns and mirror images of (..., H, W), stacked in front: (8, ..., H, W)."""
    quarter = [pictures.rot90(times, (-2, -1)) for times in range(4)]
    return torch.stack([*quarter, *(one.flip(-1) for one in quarter)])


class Whitening:
    """Makes details of all sizes count alike; fitted to the site's training images.

    Args:
        pictures: (N, S, S) grey.
        noise: grey levels.
    """

    def __init__(self, pictures: Tensor, noise: float) -> None:
        side = pictures.shape[-1]
        self.canvas = side + side // 2
        window = torch.hann_window(side, periodic=False)
        window = window[:, None] * window
        window = window / window.square().mean().sqrt()
        bins = self.canvas
        total, count = torch.zeros(bins), torch.zeros(bins)
        where = (_frequency(side) * 2 * (bins - 1)).round().long().clamp(max=bins - 1)
        power = torch.zeros(side, side)
        for part in torch.split(pictures, PART):
            level = (part - part.mean((-2, -1), keepdim=True)) * window
            power += torch.fft.fft2(level).abs().square().sum(0) / side**2
        power /= len(pictures)
        total.index_add_(0, where.flatten(), power.flatten())
        count.index_add_(0, where.flatten(), torch.ones(side * side))
        known = count > 0
        places = known.nonzero()[:, 0].numpy()
        mean = (total[known] / count[known]).numpy()
        radial = torch.from_numpy(np.interp(np.arange(bins), places, mean)).float()
        floor = float(noise) ** 2
        here = (_frequency(self.canvas) * 2 * (bins - 1)).clamp(max=bins - 1)
        low, part = here.floor().long(), here - here.floor()
        spectrum = (
            radial[low] * (1 - part) + radial[(low + 1).clamp(max=bins - 1)] * part
        )
        self.gain = (spectrum + floor).rsqrt()
        self.gain[0, 0] = 0
        self.floor = float((floor * self.gain.square()).mean())

    def __call__(self, pictures: Tensor) -> Tensor:
        """Structure (N, h, w) of grey pictures (N, h, w) of about the fitted size."""
        high, wide = pictures.shape[-2:]
        spare = self.canvas - high, self.canvas - wide
        top, left = spare[0] // 2, spare[1] // 2
        padded = functional.pad(
            pictures[:, None],
            (left, spare[1] - left, top, spare[0] - top),
            mode="reflect",
        )[:, 0]
        flat = torch.fft.irfft2(
            torch.fft.rfft2(padded) * self.gain[:, : self.canvas // 2 + 1],
            s=(self.canvas, self.canvas),
        )[:, top : top + high, left : left + wide]
        local = _blurred(flat.square(), RADIUS * high // SIDE)
        even = flat / (local + 2 * self.floor).sqrt()
        return torch.as_tensor(even.clamp(-LIMIT, LIMIT))


def _frequency(side: int) -> Tensor:
    """Radial frequency (side, side) in cycles per pixel, at most 1/2."""
    axis = torch.fft.fftfreq(side)
    squares: Tensor = axis[:, None].square() + axis.square()
    return squares.sqrt().clamp(max=0.5)


def _blurred(energy: Tensor, radius: int) -> Tensor:
    """Mean over a soft window, of (N, H, W)."""
    for _ in range(2):
        energy = functional.avg_pool2d(
            energy[:, None],
            2 * (radius // 2) + 1,
            1,
            radius // 2,
            count_include_pad=False,
        )[:, 0]
    return torch.as_tensor(energy)
