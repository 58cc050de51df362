"""Colours as people see them: CIELAB, and their names."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Source: IEC 61966-2-1 (sRGB) and CIE 1976 L*a*b* with white point D65.
_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE = (0.95047, 1.0, 1.08883)
_LINEAR = 0.04045  # sRGB value below which the curve is a straight line
_CUBE = (6 / 29) ** 3  # XYZ share below which the cube root is a straight line


def to_lab(rgb: Tensor) -> Tensor:
    """Turn sRGB in 0..255 into CIELAB.

    Args:
        rgb: Shape (3, ...), any float or integer type.

    Returns:
        Shape (3, ...): L in 0..100, a (green to red), b (blue to yellow).
    """
    scaled = rgb.float() / 255
    linear = torch.where(
        scaled <= _LINEAR, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4
    )
    xyz = torch.tensordot(torch.tensor(_TO_XYZ), linear, dims=1)
    white = torch.tensor(_WHITE).reshape(3, *[1] * (rgb.dim() - 1))
    share = xyz / white
    root = torch.where(
        share > _CUBE, share.clamp_min(_CUBE) ** (1 / 3), share * (841 / 108) + 4 / 29
    )
    x, y, z = root
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


class Named(NamedTuple):
    """A colour name and the box of CIELAB that it stands for, bounds included."""

    word: str
    lightness: tuple[float, float] = (0, 100)
    chroma: tuple[float, float] = (0, 200)
    hue: tuple[float, float] = (-180, 180)  # degrees, 0 is red, 90 is yellow


def name(lab: Tensor, names: Sequence[Named]) -> str:
    """The first of `names` whose box holds a colour given as CIELAB (3,).

    The last name stands for all colours that no box before it holds.
    """
    lightness, red, yellow = lab.tolist()
    values = (lightness, math.hypot(red, yellow), math.degrees(math.atan2(yellow, red)))
    for word, *box in names:
        inside = zip(values, box, strict=True)
        if all(low <= value <= high for value, (low, high) in inside):
            return word
    return names[-1].word


# Bounds were set on HAM10000 and Kvasir-SEG so that no name takes most of the images.
SKIN_LESION = (
    Named("black", lightness=(0, 14)),
    Named("black", lightness=(0, 27), chroma=(0, 20)),
    Named("blue-grey", lightness=(0, 52), chroma=(0, 13)),
    Named("blue-grey", lightness=(0, 52), hue=(-180, -10)),
    Named("violet", chroma=(0, 13)),
    Named("violet", hue=(-180, -10)),
    Named("red", chroma=(32, 200), hue=(-10, 16)),
    Named("red", chroma=(50, 200), hue=(16, 34)),
    Named("pink", hue=(-10, 16)),
    Named("dark brown", lightness=(0, 42)),
    Named("red-brown", chroma=(32, 200), hue=(16, 34)),
    Named("brown", lightness=(0, 53)),
    Named("light brown", lightness=(0, 62)),
    Named("beige"),
)
POLYP = (
    Named("dark red", lightness=(0, 52), hue=(-180, 45)),
    Named("brown", lightness=(0, 52)),
    Named("yellowish", hue=(53, 180)),
    Named("whitish", lightness=(68, 100)),
    Named("red", chroma=(46, 200), hue=(-180, 43)),
    Named("pink", hue=(-180, 43)),
    Named("salmon", lightness=(0, 61)),
    Named("apricot"),
)
SKIN_CAST = (
    Named("neutral", chroma=(0, 12)),
    Named("strongly purplish", chroma=(22, 200), hue=(-180, -6)),
    Named("purplish", hue=(-180, -6)),
    Named("strongly pinkish", chroma=(22, 200), hue=(-6, 14)),
    Named("pinkish", hue=(-6, 14)),
    Named("yellowish", hue=(40, 180)),
    Named("strongly peach", chroma=(22, 200)),
    Named("peach"),
)
MUCOSA_CAST = (
    Named("faded reddish", chroma=(0, 37), hue=(-180, 41.5)),
    Named("vivid reddish", chroma=(48, 200), hue=(-180, 41.5)),
    Named("reddish", hue=(-180, 41.5)),
    Named("faded orange", chroma=(0, 37), hue=(41.5, 46)),
    Named("vivid orange", chroma=(48, 200), hue=(41.5, 46)),
    Named("orange", hue=(41.5, 46)),
    Named("faded yellowish", chroma=(0, 37)),
    Named("vivid yellowish", chroma=(48, 200)),
    Named("yellowish"),
)
