"""Copies of a picture, as a model or a hand may make them: every kind that a gate knows."""

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]  # (H, W, 3)


def _jpeg(picture: Picture, quality: int = 50) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def _crop(picture: Picture, draw: np.random.Generator, share: float = 0.9) -> Picture:
    """A part at a random place, brought back to the whole's size."""
    side = len(picture)
    kept = round(side * share)
    top, left = draw.integers(0, side - kept + 1, 2)
    part = Image.fromarray(picture[top : top + kept, left : left + kept])
    return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR))


def _noise(picture: Picture, draw: np.random.Generator, sigma: float) -> Picture:
    return np.clip(picture + draw.normal(0, sigma, picture.shape), 0, 255)


def _shift(picture: Picture, draw: np.random.Generator) -> Picture:
    """Moved by up to a twentieth, the border repeated."""
    side = len(picture)
    most = max(1, side // 20)
    down, right = draw.integers(0, 2 * most + 1, 2)
    room = np.pad(picture, ((most, most), (most, most), (0, 0)), "edge")
    return room[down : down + side, right : right + side]


_KINDS: Mapping[str, Callable[[Picture, np.random.Generator], Picture]] = {
    "exact": lambda picture, _: picture,
    "mirrored": lambda picture, _: picture[:, ::-1],
    "upside down": lambda picture, _: picture[::-1],
    "both": lambda picture, _: picture[::-1, ::-1],
    "quarter turn": lambda picture, _: np.rot90(picture),
    "crop 90 %": _crop,
    "JPEG 50": lambda picture, _: _jpeg(picture),
    "brighter 10 %": lambda picture, _: np.clip(picture * 1.1, 0, 255),
    "darker 10 %": lambda picture, _: picture * 0.9,
    "noise 5": lambda picture, draw: _noise(picture, draw, 5),
    "noise 10": lambda picture, draw: _noise(picture, draw, 10),
    "shift": _shift,
    "mirror+crop+JPEG": lambda picture, draw: _jpeg(
        np.ascontiguousarray(_crop(picture[:, ::-1], draw))
    ),
    "crop+noise 10": lambda picture, draw: _noise(_crop(picture, draw), draw, 10),
}
KINDS = tuple(_KINDS)


def copied(kind: str, picture: Picture, draw: np.random.Generator) -> Picture:
    """A copy of one picture (H, W, 3)."""
    return np.ascontiguousarray(
        _KINDS[kind](np.ascontiguousarray(picture), draw)
    ).astype(np.uint8)
