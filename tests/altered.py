"""Copies that were altered further: other framing, bent, drawn over, mixed, dirtied.

What a gate finds of these is measured and published, misses included; see
tests/benchmarks/test_release_gate.py. Sizes are shares of the picture's side.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Picture = NDArray[np.uint8]  # (H, W, 3)
Change = Callable[[Picture, Picture, np.random.Generator], NDArray[np.generic]]

ELASTIC = 1 / 16  # of the side: the furthest that a point moves, 4 px of 64
SMOOTH = 1 / 8  # of the side: how far an elastic warp reaches


def _scaled(picture: Picture, high: int, wide: int) -> Picture:
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((wide, high), Image.Resampling.BICUBIC))


def cropped(picture: Picture, draw: np.random.Generator, share: float) -> Picture:
    """A part of so much of the side at a random place, brought back to the size."""
    side = len(picture)
    kept = round(side * share)
    top, left = draw.integers(0, side - kept + 1, 2)
    return _scaled(picture[top : top + kept, left : left + kept], side, side)


def padded(picture: Picture, draw: np.random.Generator, share: float) -> Picture:
    """The whole picture, smaller, somewhere on a plain ground of its border's colour."""
    side = len(picture)
    small = _scaled(picture, round(side / share), round(side / share))
    ground = np.median(picture[0], axis=0).astype(np.uint8)
    found = np.broadcast_to(ground, picture.shape).copy()
    top, left = draw.integers(0, side - len(small) + 1, 2)
    found[top : top + len(small), left : left + len(small)] = small
    return found


def stretched(picture: Picture, draw: np.random.Generator, ratio: float) -> Picture:
    """Wider or higher by `ratio`, cut back to a square in the middle."""
    side = len(picture)
    long = round(side * ratio)
    start = (long - side) // 2
    if draw.random() < 0.5:
        return _scaled(picture, side, long)[:, start : start + side]
    return _scaled(picture, long, side)[start : start + side]


def rotated(picture: Picture, draw: np.random.Generator, degrees: float) -> Picture:
    """Turned either way about the middle, and cut to what the picture fills."""
    angle = np.deg2rad(degrees) * draw.choice([-1, 1])
    shrink = 1 / (abs(np.cos(angle)) + abs(np.sin(angle)))
    turn = shrink * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    return _mapped(picture, turn)


def sheared(picture: Picture, draw: np.random.Generator, share: float) -> Picture:
    """Slanted either way, enlarged so that the picture fills it."""
    lean = share * draw.choice([-1, 1])
    return _mapped(picture, np.array([[1.0, 0.0], [lean, 1.0]]) / (1 + share))


def _mapped(picture: Picture, matrix: NDArray[np.float64]) -> Picture:
    """Each point taken from `matrix` times its place, both seen from the middle."""
    side = len(picture)
    middle = np.full(2, (side - 1) / 2)
    planes = [
        ndimage.affine_transform(
            picture[..., k].astype(float),
            matrix,
            middle - matrix @ middle,
            order=3,
            mode="nearest",
        )
        for k in range(3)
    ]
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def bent(picture: Picture, draw: np.random.Generator, share: float) -> Picture:
    """An elastic warp whose furthest point moves by `share` of the side."""
    side = len(picture)
    field = ndimage.gaussian_filter(
        draw.normal(size=(2, side, side)), (0, SMOOTH * side, SMOOTH * side)
    )
    field *= share * side / np.hypot(*field).max()
    place = np.mgrid[:side, :side] + field
    planes = [
        ndimage.map_coordinates(picture[..., k].astype(float), place, mode="nearest")
        for k in range(3)
    ]
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def salted(picture: Picture, draw: np.random.Generator, share: float) -> Picture:
    """A share of the pixels black or white."""
    found = picture.copy()
    hit = draw.random(picture.shape[:2]) < share
    found[hit] = 255 * draw.integers(0, 2, (int(hit.sum()), 1))
    return found


def inpainted(picture: Picture, draw: np.random.Generator, share: float) -> Picture:
    """A square of so much of the side filled from around, as by diffusion."""
    side = len(picture)
    wide = round(side * share)
    top, left = draw.integers(0, side - wide + 1, 2)
    known = np.ones((side, side, 1))
    known[top : top + wide, left : left + wide] = 0
    reach = (wide / 3, wide / 3, 0)
    level = ndimage.gaussian_filter(picture * known, reach)
    weight = ndimage.gaussian_filter(known, reach)
    return np.where(known > 0, picture, level / np.maximum(weight, 1e-6))


def covered(picture: Picture, draw: np.random.Generator, share: float) -> Picture:
    """A grey square of so much of the side over it."""
    side = len(picture)
    wide = round(side * share)
    top, left = draw.integers(0, side - wide + 1, 2)
    found = picture.copy()
    found[top : top + wide, left : left + wide] = 128
    return found


def lettered(picture: Picture, draw: np.random.Generator) -> Picture:
    """Words and a scale bar over it."""
    side = len(picture)
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for _ in range(2):
        left, top = draw.integers(0, max(1, side - 36), 2)
        pen.text((int(left), int(top)), "L 12 mm", fill="white")
    low = side - 4
    pen.line((4, low, side // 2, low), fill="yellow")
    return np.asarray(image)


def toned(picture: Picture, other: Picture) -> NDArray[np.float64]:
    """With the mean and spread that each colour has in another picture."""
    mine, theirs = picture.reshape(-1, 3), other.reshape(-1, 3)
    level = (picture - mine.mean(0)) / (mine.std(0) + 1)
    return np.clip(level * theirs.std(0) + theirs.mean(0), 0, 255)


def _blurred(picture: Picture) -> NDArray[np.float64]:
    sigma = len(picture) / 64
    return ndimage.gaussian_filter(picture.astype(float), (sigma, sigma, 0))


def _gamma(picture: Picture, power: float) -> NDArray[np.float64]:
    return 255 * (picture / 255) ** power


def _mixed(picture: Picture, other: Picture) -> NDArray[np.float64]:
    return 0.7 * picture + 0.3 * other


def _jpeg(picture: Picture) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(stream, "JPEG", quality=20)
    return np.asarray(Image.open(stream).convert("RGB"))


_KINDS: Mapping[str, Change] = {
    "crop 80 %": lambda one, _, draw: cropped(one, draw, 0.8),
    "crop 70 %": lambda one, _, draw: cropped(one, draw, 0.7),
    "patch of half the side": lambda one, _, draw: cropped(one, draw, 0.5),
    "padded to 125 %": lambda one, _, draw: padded(one, draw, 1.25),
    "stretched 1:1.25": lambda one, _, draw: stretched(one, draw, 1.25),
    "rotated by 10 degrees": lambda one, _, draw: rotated(one, draw, 10),
    "rotated by 25 degrees": lambda one, _, draw: rotated(one, draw, 25),
    "sheared by 15 %": lambda one, _, draw: sheared(one, draw, 0.15),
    "elastic warp, 1/16": lambda one, _, draw: bent(one, draw, ELASTIC),
    "salt noise 5 %": lambda one, _, draw: salted(one, draw, 0.05),
    "blur, 1/64": lambda one, _, draw: _blurred(one),
    "JPEG 20": lambda one, _, draw: _jpeg(one),
    "gamma 1.6": lambda one, _, draw: _gamma(one, 1.6),
    "colours of another": lambda one, other, _: toned(one, other),
    "mixed 70:30 with another": lambda one, other, _: _mixed(one, other),
    "a third inpainted": lambda one, _, draw: inpainted(one, draw, 1 / 3),
    "a quarter covered": lambda one, _, draw: covered(one, draw, 0.5),
    "words over it": lambda one, _, draw: lettered(one, draw),
    "mirror+crop 80 %+10 degrees": lambda one, _, draw: cropped(
        rotated(one[:, ::-1], draw, 10), draw, 0.8
    ),
}
ALTERED = tuple(_KINDS)


def altered(
    kind: str, picture: Picture, other: Picture, draw: np.random.Generator
) -> Picture:
    """A copy of one picture (H, W, 3), altered; `other` is a picture of another unit."""
    found = _KINDS[kind](np.ascontiguousarray(picture), other, draw)
    return np.ascontiguousarray(found).astype(np.uint8)
