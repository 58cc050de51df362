"""Measure what a caption can say of an image: where, how large, what shape, what look.

Everything is measured on one grid of GRID x GRID, whatever the size of the image, so
that the same picture at another resolution gets the same words.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vgmedgen.data import scales
from vgmedgen.data.colour import (
    MUCOSA_CAST,
    POLYP,
    SKIN_CAST,
    SKIN_LESION,
    name,
    to_lab,
)
from vgmedgen.data.measuring import FRAME, GRID, Colour, form, look, picture

ANATOMY = ("number", "size", "shape", "outline", "orientation", "position", "border")
STYLE = (
    *("colour", "texture", "contrast", "posterior", "tone", "light", "cast", "depth"),
    *("grain", "frame", "shading"),
)
NO_LESION = "no lesion"
COLOURS = {"endoscopy": POLYP}  # all else is named as on skin
CASTS = {"endoscopy": MUCOSA_CAST}


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """Measured facts of one image and its mask.

    Lightness is CIELAB L in 0..100, colours are medians in 0..255. Without a lesion
    `area` and `parts` are 0, the lesion's colours are the image's, and the centre is
    the image's.

    Attributes:
        area: Share of the image, 0 to 1.
        x: Centroid from the left, 0 to 1.
        y: Centroid from the top, 0 to 1.
        parts: Number of separate lesions.
        elongation: Long over short axis of the largest part, 1 and above.
        angle: Of the long axis, degrees in [0, 180), 0 is horizontal.
        solidity: Area of the largest part over that of its convex hull, 0 to 1.
        irregularity: Share by which its outline leaves an ellipse, 0 to 1.
        sharpness: Step of lightness and colour at the border, as a share of the
            difference between lesion and surround; 1 is a clean edge.
        contrast: Distance in CIELAB between lesion and surround.
        difference: Lightness of the lesion minus that of its surround.
        texture: Spread of lightness inside the lesion (or tissue, without one).
        lesion_rgb: Colour of the lesion.
        surround_rgb: Colour of the tissue around the lesion.
        image_rgb: Colour of the whole image without its black frame.
        lightness: Mean lightness of the whole image without its black frame.
        grain: Mean step of lightness across two grid pixels, over the whole image.
        below: Lightness below the lesion minus that beside this place.
        shade_x: Lightness of the right half minus that of the left.
        shade_y: Lightness of the lower half minus that of the upper.
        corners: Lightness of the corners over that of the whole image.
        inset: Share of black in the lower left, where endoscopes show their position.
    """

    area: float
    x: float
    y: float
    parts: int
    elongation: float
    angle: float
    solidity: float
    irregularity: float
    sharpness: float
    contrast: float
    difference: float
    texture: float
    lesion_rgb: Colour
    surround_rgb: Colour
    image_rgb: Colour
    lightness: float
    grain: float
    below: float
    shade_x: float
    shade_y: float
    corners: float
    inset: float

    def to_dict(self) -> dict[str, object]:
        """Plain values, as JSON can hold them."""
        return asdict(self)


def measure(image: Tensor, mask: Tensor) -> Attributes:
    """Measure one image.

    Args:
        image: (3, H, W) uint8.
        mask: (1, H, W) uint8 of 0 and 1; all 0 means that there is no lesion.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if image.shape[1:] != mask.shape[1:] or image.shape[0] != 3:  # noqa: PLR2004
        raise ValueError(f"image {tuple(image.shape)} and mask {tuple(mask.shape)}")
    planes = torch.cat([image, mask]).float()[None]
    small = functional.interpolate(planes, size=(GRID, GRID), mode="area")[0]
    colours, lesion = small[:3], (small[3] * 2 >= 1).float()
    if not lesion.any() and mask.any():
        # a lesion below half a grid pixel is still a lesion
        lesion = (small[3] == small[3].max()).float()
    lab = to_lab(colours)
    seen = (lab[0] > FRAME).float()
    if not seen.any():
        seen = torch.ones_like(seen)
    return Attributes(
        **form(lesion),
        **look(colours, lab, lesion, seen),
        **picture(colours, lab, lesion, seen),
    )


def words(attributes: Attributes, modality: str) -> dict[str, str]:
    """Say measured facts in the words of the field, one word or short phrase a key.

    Anatomy keys: number, size, shape, outline, orientation, position, border. Style
    keys: colour, texture, contrast, posterior, tone, light, cast, depth, grain, frame,
    shading. A word that does not apply is empty; without a lesion, size is "no lesion".

    Args:
        attributes: From `measure`.
        modality: dermoscopy, ultrasound, endoscopy, or empty.
    """
    return {**_anatomy(attributes), **_style(attributes, modality)}


def _anatomy(facts: Attributes) -> dict[str, str]:
    if not facts.parts:
        nothing = dict.fromkeys(ANATOMY, "")
        return {**nothing, "size": NO_LESION}
    row, column = scales.ROW.of(facts.y), scales.COLUMN.of(facts.x)
    centred = (row, column) == ("middle", "central")
    oriented = facts.elongation >= scales.ORIENTED
    return {
        "number": scales.NUMBER.of(facts.parts),
        "size": scales.SIZE.of(facts.area),
        "shape": scales.SHAPE.of(facts.elongation),
        "outline": scales.OUTLINE.of(facts.irregularity),
        "orientation": scales.ORIENTATION.of(facts.angle) if oriented else "",
        "position": "centre" if centred else f"{row} {column}",
        "border": scales.BORDER.of(facts.sharpness),
    }


def _style(facts: Attributes, modality: str) -> dict[str, str]:
    look = scales.LOOKS[modality]
    lesion, surround, image = (
        to_lab(torch.tensor(rgb))
        for rgb in (facts.lesion_rgb, facts.surround_rgb, facts.image_rgb)
    )
    said = dict.fromkeys(STYLE, "")
    said["texture"] = scales.TEXTURE.of(facts.texture)
    said["tone"] = look.tone.of(float(surround[0]))
    said["light"] = look.light.of(facts.lightness)
    said["grain"] = look.grain.of(facts.grain)
    if facts.parts:
        said["contrast"] = scales.CONTRAST.of(facts.contrast)
        said["colour"] = _colour(facts, lesion, modality)
    if modality == "ultrasound":
        said["posterior"] = scales.POSTERIOR.of(facts.below) if facts.parts else ""
        said["depth"] = scales.DEPTH.of(facts.shade_y)
    else:
        said["cast"] = name(image, CASTS.get(modality, SKIN_CAST))
    if modality == "endoscopy":
        said["frame"] = "black inset" if facts.inset >= scales.INSET else ""
    elif facts.corners < scales.CORNERS:
        said["frame"] = "dark corners"
    said["shading"] = _shading(facts, look.shade, vertical=modality != "ultrasound")
    return said


def _colour(facts: Attributes, lesion: Tensor, modality: str) -> str:
    if modality != "ultrasound":
        return name(lesion, COLOURS.get(modality, SKIN_LESION))
    if float(lesion[0]) < scales.ANECHOIC:
        return "anechoic"
    return scales.ECHO.of(facts.difference)


def _shading(facts: Attributes, least: float, *, vertical: bool) -> str:
    """Where the light falls off; depth says it for the rows of an ultrasound image."""
    sides = []
    if vertical and abs(facts.shade_y) >= least:
        sides.append("downward" if facts.shade_y < 0 else "upward")
    if abs(facts.shade_x) >= least:
        sides.append("rightward" if facts.shade_x < 0 else "leftward")
    return " and ".join(sides)
