"""Measure a picture and its lesion on one grid: form, look, and what the light does.

Planes are float (GRID, GRID); colours (3, GRID, GRID) in 0..255, lab their CIELAB.
Masks are 0 and 1. The fields are described in `vgmedgen.data.attributes`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vgmedgen.data import shapes

GRID = 64  # side of the measuring grid
RING = 6  # grid pixels around a lesion that count as its surround
EDGE = 2  # grid pixels on either side of a border
SMALLEST_PART = 0.1  # of the largest part; smaller ones are not counted
FAINT = 2.0  # CIELAB distance below which a border cannot be judged
INSET = (slice(46, 57), slice(7, 19))  # rows, columns that endoscopes cover
FRAME = 12  # lightness up to which a pixel is the black frame around a picture

Colour = tuple[float, float, float]  # red, green, blue in 0..255


def form(lesion: Tensor) -> dict[str, Any]:
    """Where, how large and what shape; the shape is the largest part's."""
    if not lesion.any():
        nothing = {"area": 0.0, "x": 0.5, "y": 0.5, "parts": 0, "elongation": 1.0}
        return {**nothing, "angle": 0.0, "solidity": 1.0, "irregularity": 0.0}
    whole, pieces = shapes.moments(lesion), shapes.parts(lesion, SMALLEST_PART)
    largest = shapes.moments(pieces[0])
    return {
        "area": round(float(lesion.mean()), 4),
        "x": round(whole.x, 4),
        "y": round(whole.y, 4),
        "parts": len(pieces),
        "elongation": round(largest.long / largest.short, 3),
        "angle": round(largest.angle, 1),
        "solidity": round(shapes.solidity(pieces[0]), 4),
        "irregularity": round(shapes.ellipse_gap(pieces[0], largest), 4),
    }


def look(colours: Tensor, lab: Tensor, lesion: Tensor, seen: Tensor) -> dict[str, Any]:
    """Colour, contrast, border and texture of the lesion against its surround."""
    inside = lesion if lesion.any() else seen
    around = (shapes.grown(lesion, RING) - shapes.grown(lesion, 1)) * seen
    if around.sum() < GRID:
        around = (1 - lesion) * seen
    if around.sum() < GRID:
        around = seen
    gap = _median(lab, inside) - _median(lab, around)
    rim = lesion - shapes.grown(lesion, -EDGE)
    collar = shapes.grown(lesion, EDGE) - lesion
    step = _mean(lab, rim) - _mean(lab, collar)
    length = float(gap.norm())
    sharpness = float(step @ gap) / length**2 if length > FAINT else 0.0
    spread = torch.quantile(lab[0][inside > 0], torch.tensor([0.16, 0.84]))
    return {
        "sharpness": round(min(max(sharpness, 0.0), 1.0), 3),
        "contrast": round(length, 2),
        "difference": round(float(gap[0]), 2),
        "texture": round(float(spread[1] - spread[0]) / 2, 2),
        "lesion_rgb": _rgb(colours, inside),
        "surround_rgb": _rgb(colours, around),
        "below": round(_below(lab[0], lesion), 2),
    }


def _below(lightness: Tensor, lesion: Tensor) -> float:
    """Lightness under the lesion minus that beside this place; 0 where unknown."""
    if not lesion.any():
        return 0.0
    rows, columns = (lesion.any(dim=d).nonzero().flatten().tolist() for d in (1, 0))
    bottom, left, right = rows[-1] + 2, columns[0], columns[-1] + 1
    depth = lightness[bottom : bottom + GRID // 5]
    inset = (right - left) // 5
    under = depth[:, left + inset : right - inset]
    wide = max(right - left, 4)
    beside = torch.cat(
        [depth[:, max(left - wide, 0) : left], depth[:, right : right + wide]], dim=1
    )
    if min(under.numel(), beside.numel()) < GRID // 5 or depth.shape[0] < EDGE:
        return 0.0
    return float(under.median() - beside.median())


def picture(
    colours: Tensor, lab: Tensor, lesion: Tensor, seen: Tensor
) -> dict[str, Any]:
    """What the device and its light do to the whole image."""
    light, half = lab[0], GRID // 2
    tissue = seen * (1 - lesion)
    mean = float(_mean(lab, seen)[0])
    halves = [
        float(_mean(light[None, rows, columns], tissue[rows, columns])[0])
        for rows, columns in (
            (slice(None), slice(0, half)),
            (slice(None), slice(half, None)),
            (slice(0, half), slice(None)),
            (slice(half, None), slice(None)),
        )
    ]
    # pooled once more, for the finest step depends on how the file was scaled
    coarse = functional.avg_pool2d(torch.stack([light, seen])[None], 2)[0]
    whole = (coarse[1] == 1).float()
    across = (coarse[0, :, 1:] - coarse[0, :, :-1]).abs()
    whole = whole[:, 1:] * whole[:, :-1]
    corner = GRID // 12
    ends = [light[r, c] for r in _ends(corner) for c in _ends(corner)]
    return {
        "image_rgb": _rgb(colours, seen),
        "lightness": round(mean, 2),
        "grain": round(float(_mean(across[None], whole)[0]), 2),
        "shade_x": round(halves[1] - halves[0], 2),
        "shade_y": round(halves[3] - halves[2], 2),
        "corners": round(float(torch.stack(ends).mean()) / max(mean, 1), 3),
        "inset": round(float((light[INSET] <= FRAME).float().mean()), 3),
    }


def _ends(width: int) -> tuple[slice, slice]:
    return slice(0, width), slice(GRID - width, GRID)


def _median(planes: Tensor, where: Tensor) -> Tensor:
    """Median of each plane (C, N, N) over `where`; over all where that is empty."""
    chosen = planes[:, where > 0] if where.any() else planes.flatten(1)
    return chosen.median(dim=1).values


def _mean(planes: Tensor, where: Tensor) -> Tensor:
    """Mean of each plane (C, ...) over `where`; over all where that is empty."""
    chosen = planes[:, where > 0] if where.any() else planes.flatten(1)
    return chosen.mean(dim=1)


def _rgb(planes: Tensor, where: Tensor) -> Colour:
    red, green, blue = _median(planes, where).tolist()
    return round(red, 1), round(green, 1), round(blue, 1)
