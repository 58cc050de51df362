"""What a phantom is: an image, its mask, and the attributes that it was drawn from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from vgmedgen.data.phantom_noise import Plane
from vgmedgen.data.phantom_outline import Lesion, Region

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_SHARP = 0.15  # softness below which a border is called sharp
_SMALL, _LARGE = 0.08, 0.3  # area shares between the size words


@dataclass(frozen=True, kw_only=True)
class DrawnAttributes:
    """The truth that a phantom was drawn from; zeros and "none" without a lesion.

    Attributes:
        x: Centre from left, 0 to 1, of the part inside the frame.
        y: Centre from the top, 0 to 1.
        position: The same in words of a 3x3 grid, such as "upper left".
        area: Share of the whole image, 0 to 1.
        size: small, medium or large.
        shape: round, oval, lobulated, irregular or spiculated.
        elongation: Long axis over short axis, 1 and above.
        irregularity: Roughness of the outline, 0 to 1.
        sharpness: 1 is a step at the border, 0 fades over the whole radius.
        border: sharp or ill-defined.
        colour: Name of the lesion's colour, or its echogenicity in ultrasound.
        rgb: Mean colour of the lesion before hair, highlights and device, 0 to 255.
        surround_rgb: The same of the tissue around it.
        contrast: Brightness of surround minus lesion, -1 to 1.
        tone: Name of the tissue's tone.
        texture: Names of what was painted in the lesion and over the image.
    """

    x: float
    y: float
    position: str
    area: float
    size: str
    shape: str
    elongation: float
    irregularity: float
    sharpness: float
    border: str
    colour: str
    rgb: tuple[int, int, int]
    surround_rgb: tuple[int, int, int]
    contrast: float
    tone: str
    texture: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values, as JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """One drawn image.

    Attributes:
        image: (px, px, 3) uint8.
        mask: (px, px) uint8, 1 in the lesion; all 0 where there is none.
        label: A class of the real dataset, such as "mel", "benign" or "polyp".
        drawn: The true attributes.
        facts: Columns of the dataset's table (dermoscopy: age, sex, ...).
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    label: str
    drawn: DrawnAttributes
    facts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Painting:
    """A painted canvas before the device: (px, px, 3) in [0, 1], and its truth."""

    canvas: Plane
    mask: NDArray[np.uint8]
    drawn: DrawnAttributes


def position_of(x: float, y: float) -> str:
    """Word of the 3x3 grid cell that holds (x, y)."""
    row = ("upper", "centre", "lower")[min(int(y * 3), 2)]
    column = ("left", "centre", "right")[min(int(x * 3), 2)]
    return "centre" if row == column else f"{row} {column}"


def nearest(colour: Plane, names: Mapping[str, tuple[int, int, int]]) -> str:
    """Name whose colour (0 to 255) lies nearest to `colour` (3,) in [0, 1]."""

    def distance(name: str) -> float:
        gap = np.asarray(names[name], dtype=np.float32) / 255 - colour
        return float(np.square(gap).sum())

    return min(names, key=distance)


def _bytes_of(colour: Plane) -> tuple[int, int, int]:
    red, green, blue = (round(float(value) * 255) for value in colour)
    return red, green, blue


def mean_colours(canvas: Plane, region: Region) -> tuple[Plane, Plane]:
    """Mean colour (3,) of the lesion and of the visible tissue around it."""
    weight = region.mask.astype(np.float32)
    rest = region.visible * (1 - weight)
    inside = np.tensordot(weight, canvas, 2) / max(float(weight.sum()), 1)
    outside = np.tensordot(rest, canvas, 2) / max(float(rest.sum()), 1)
    return np.asarray(inside, np.float32), np.asarray(outside, np.float32)


def describe(
    lesion: Lesion,
    region: Region,
    colours: tuple[Plane, Plane],
    *,
    colour: str,
    tone: str,
    texture: tuple[str, ...],
) -> DrawnAttributes:
    """Truth of a lesion as it stands in its region, in the words given."""
    inside, outside = colours
    x, y = region.centre
    size = "small" if region.area < _SMALL else "large" if region.area > _LARGE else ""
    return DrawnAttributes(
        x=x,
        y=y,
        position=position_of(x, y),
        area=region.area,
        size=size or "medium",
        shape=lesion.shape,
        elongation=lesion.elongation,
        irregularity=lesion.irregularity,
        sharpness=1 - lesion.softness,
        border="sharp" if lesion.softness < _SHARP else "ill-defined",
        colour=colour,
        rgb=_bytes_of(inside),
        surround_rgb=_bytes_of(outside),
        contrast=float(_LUMA @ (outside - inside)),
        tone=tone,
        texture=texture,
    )


def nothing_drawn(tissue: Plane, *, tone: str) -> DrawnAttributes:
    """Truth of an image without a lesion on tissue of mean colour `tissue` (3,)."""
    return DrawnAttributes(
        x=0.0,
        y=0.0,
        position="none",
        area=0.0,
        size="none",
        shape="none",
        elongation=1.0,
        irregularity=0.0,
        sharpness=0.0,
        border="none",
        colour="none",
        rgb=(0, 0, 0),
        surround_rgb=_bytes_of(tissue),
        contrast=0.0,
        tone=tone,
        texture=(),
    )
