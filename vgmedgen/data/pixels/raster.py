"""What an image file that is not DICOM stores, upright: values, transparency, palette."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from vgmedgen.data.pixels import colours, words
from vgmedgen.data.pixels.opening import is_lossy, opened, orientation
from vgmedgen.errors import DataError

_OPAQUE = 255

Values = NDArray[Any]
# how each EXIF orientation is brought upright (EXIF 2.3, 4.6.4 A)
_UPRIGHT: dict[int, Callable[[Values], Values]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@dataclass(frozen=True, kw_only=True)
class Raster:
    """One picture as stored.

    Attributes:
        values: (H, W), or (H, W, 3) as RGB; uint8 or wider.
        alpha: (H, W) uint8, 255 is opaque; None where all of it is.
        index: (H, W) into a palette; None without one.
        bits: depth of `values` where the file says it; None where only their word is
            known.
        lossy: whether compression may have changed values.
    """

    values: Values
    alpha: Values | None = None
    index: Values | None = None
    bits: int | None = None
    lossy: bool = False


def read(path: Path, *, profile: bool) -> Raster:
    """Decode a file.

    Args:
        path: the file.
        profile: whether colours become those that an ICC profile in it means.

    Raises:
        DataError: if it is not one image that can be decoded without doubt.
    """
    with opened(path) as image:
        bits = words.check(path, image)
        wide = words.colours(path, image)
        turn = _UPRIGHT[orientation(path, image)]  # which may decode a PNG
        lossy = is_lossy(path, image)
        image.load()
        if isinstance(image, TiffImageFile):  # its loader has turned it
            turn = _UPRIGHT[1]
        values, alpha = wide or _stored(path, image, profile=profile)
        index = np.asarray(image) if image.mode == "P" else None
        if bits and image.format == "JPEG2000":  # its decoder has filled the word
            values = values >> (8 * values.itemsize - bits)
        if wide:
            alpha = _key(image, values) if alpha is None else alpha
        if alpha is not None and alpha.min(initial=_OPAQUE) == _OPAQUE:
            alpha = None
        return Raster(
            values=np.ascontiguousarray(turn(values)),
            alpha=None if alpha is None else turn(alpha),
            index=None if index is None else turn(index),
            bits=bits,
            lossy=lossy,
        )


def _stored(
    path: Path, image: Image.Image, *, profile: bool
) -> tuple[Values, Values | None]:
    """Values and transparency of a decoded image."""
    mode = image.mode
    if mode == "1":
        values = np.asarray(image, dtype=np.uint8) * np.uint8(_OPAQUE)
        return values, _key(image, values // _OPAQUE)
    if mode in ("L", "I", "F") or mode.startswith("I;16"):
        values = np.asarray(image)
        values = values.astype(values.dtype.newbyteorder("="))
        return values, _key(image, values)
    if mode in ("LA", "La"):
        both = np.asarray(image.convert("LA"))
        return both[..., 0], both[..., 1]
    clear = mode == "P" and "transparency" in image.info
    if clear or mode in ("PA", "RGBA", "RGBa"):
        whole = image.convert("RGBA")
        rgb = colours.to_rgb(path, whole.convert("RGB"), image, profile=profile)
        return rgb, np.asarray(whole)[..., 3]
    if mode in ("P", "RGB", "RGBX", "CMYK", "LAB", "YCbCr"):
        rgb = colours.to_rgb(path, image, image, profile=profile)
        return rgb, _key(image, np.asarray(image))
    raise DataError(
        f"{path} is an image of the kind {mode}, which is not read; save it "
        "as PNG in grey or RGB"
    )


def _key(image: Image.Image, values: Values) -> Values | None:
    """Transparency told as one grey or colour that is not to be seen."""
    key = image.info.get("transparency")
    if key is None or isinstance(key, bytes) or image.mode == "P":
        return None
    hidden = values == np.asarray(key)
    if values.ndim > 2:  # noqa: PLR2004 - rows and columns
        hidden = hidden.all(-1)
    return np.where(hidden, 0, _OPAQUE).astype(np.uint8)
