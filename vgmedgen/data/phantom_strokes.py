"""Thin things drawn over tissue: hairs, measuring marks and the device's lettering."""

import numpy as np
from PIL import Image, ImageDraw

from vgmedgen.data.phantom_noise import Plane

_INK = 0.6  # share of a letter's dots that are lit


def _scale(px: int) -> int:
    """Oversampling that keeps a stroke smooth without a large scratch image."""
    return max(1, 4 - (px + 64) // 128)


def _cover(sheet: Image.Image, px: int) -> Plane:
    small = sheet if sheet.width == px else sheet.reduce(sheet.width // px)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def hairs(rng: np.random.Generator, px: int, count: int, width: float) -> Plane:
    """Opacity (px, px) of `count` curved hairs of `width` (image sides)."""
    side = px * _scale(px)
    sheet = Image.new("L", (side, side))
    pen = ImageDraw.Draw(sheet)
    lean = rng.uniform(0, np.pi)
    spread = rng.choice([0.3, 0.8, 3.0])
    length = rng.uniform(0.15, 0.9)
    step = np.linspace(-0.5, 0.5, 9)
    for _ in range(count):
        x, y = rng.uniform(-0.1, 1.1, 2)
        angle = lean + spread * rng.standard_normal()
        reach = length * rng.uniform(0.5, 1.5)
        bend = rng.normal(0, 0.25) * reach * (1 - 4 * step**2)
        along_x = x + reach * step * np.cos(angle) - bend * np.sin(angle)
        along_y = y + reach * step * np.sin(angle) + bend * np.cos(angle)
        points = np.stack([along_x, along_y], 1).ravel() * side
        thick = width * side * rng.uniform(0.6, 1.4)
        shade = int(255 * min(1, thick) * rng.uniform(0.6, 1))
        pen.line(points.tolist(), fill=shade, width=max(1, round(thick)))
    return _cover(sheet, px)


def lettering(
    rng: np.random.Generator,
    px: int,
    lines: list[tuple[float, float, int]],
    size: float,
) -> Plane:
    """Opacity (px, px) of unreadable lettering.

    Args:
        rng: Source of the letters.
        px: Side in pixels.
        lines: Start x, y (0 to 1) and number of letters of each line.
        size: Height of a letter in image sides.
    """
    side = px * _scale(px)
    sheet = np.zeros((side, side), np.uint8)
    dot = max(1, round(size * side / 5))
    for x, y, count in lines:
        letters = rng.random((5, count, 4)) < _INK
        letters[:, :, 3] = False  # the gap between two letters
        block = np.kron(letters.reshape(5, -1), np.ones((dot, dot))) * 255
        top, left = int(y * side), int(x * side)
        room = sheet[top : top + block.shape[0], left : left + block.shape[1]]
        room[:] = block[: room.shape[0], : room.shape[1]]
    return _cover(Image.fromarray(sheet), px)


def calipers(px: int, ends: list[tuple[float, float]], *, dotted: bool) -> Plane:
    """Opacity (px, px) of measuring crosses at `ends`; pairs may be joined by dots."""
    side = px * _scale(px)
    sheet = Image.new("L", (side, side))
    pen = ImageDraw.Draw(sheet)
    arm, width = 0.028 * side, max(1, round(side / 110))
    for x, y in ends:
        pen.line((x * side - arm, y * side, x * side + arm, y * side), 230, width)
        pen.line((x * side, y * side - arm, x * side, y * side + arm), 230, width)
    if dotted:
        for first, second in zip(ends[::2], ends[1::2], strict=True):
            for share in np.linspace(0.05, 0.95, 12):
                x = (first[0] + (second[0] - first[0]) * share) * side
                y = (first[1] + (second[1] - first[1]) * share) * side
                pen.rectangle((x, y, x + (width - 1), y + (width - 1)), fill=180)
    return _cover(sheet, px)
