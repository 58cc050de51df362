"""Pixels of more than 8 bits, which Pillow's decoders would cut or misread."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from vgmedgen.data.pixels.opening import FORMATS
from vgmedgen.errors import DataError

_BITS, _KIND, _PLANES, _SAMPLES = 258, 262, 284, 339  # TIFF tags
_WHITE_IS_ZERO, _SIGNED, _APART = 0, 2, 2  # their values
_SIZES = b"\xff\x4f\xff\x51"  # begins a JPEG 2000 codestream (ISO 15444-1, A.4 and A.5)
_COUNT, _FIRST = 40, 42  # bytes from there to the number of components, and the first
_BYTE, _WORD = 8, 16  # bits
_SWAPPED = {"L": "B", "B": "L", "N": "B"}  # decoders here run on little-endian machines

Values = NDArray[Any]


def check(path: Path, image: Image.Image) -> int | None:
    """Bits of each number where the file says more than its word does, else None.

    Raises:
        DataError: if the decoder would misread them without a word.
    """
    if isinstance(image, TiffImageFile):
        return _check_tiff(path, image)
    return _check_jpeg_2000(path) if image.format == "JPEG2000" else None


def colours(path: Path, image: Image.Image) -> tuple[Values, Values | None] | None:
    """All 16 bits of colours or of grey with transparency; None of any other image.

    Pillow keeps the upper 8 bits, which are black where a file uses the lower ones. The
    file is decoded a second time with its bytes the other way round, for the rest.

    Returns:
        Values (H, W, 3) or (H, W), uint16, and transparency (H, W), uint8, or None.
    """
    tiles = list(image.tile) if hasattr(image, "tile") else []
    if not tiles:
        return None
    raw = tiles[0].args if isinstance(tiles[0].args, str) else tiles[0].args[0]
    if not (isinstance(raw, str) and ";16" in raw) or raw.startswith("I;16"):
        return None
    if raw.startswith("LA;16"):
        parts = _decoded(path, raw, "RGBA")  # four bytes: grey, then transparency
        grey = parts[..., 0].astype(np.uint16) << _BYTE | parts[..., 1]
        return grey, parts[..., 2]
    name, order = raw.split(";16")
    upper = _decoded(path, raw, raw)
    lower = _decoded(path, raw, f"{name};16{_SWAPPED[order]}")
    if name == "CMYK":
        raise DataError(f"{path} is CMYK of 16 bits, which is not read; save it as RGB")
    whole = upper[..., :3].astype(np.uint16) << _BYTE | lower[..., :3]
    return whole, upper[..., 3] if image.mode == "RGBA" else None


def _decoded(path: Path, raw: str, other: str) -> NDArray[np.uint8]:
    """The file decoded as if its bytes lay as the raw mode `other` says."""
    with Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS) as image:
        tiles = []
        for tile in image.tile:
            told = tile.args
            changed = (other, *told[1:]) if isinstance(told, tuple) else other
            tiles.append(tile._replace(args=changed))
        image.tile = tiles
        return np.asarray(image)


def _check_tiff(path: Path, image: TiffImageFile) -> int | None:
    tags = image.tag_v2
    bits = max(tags.get(_BITS, (1,)))
    samples = tags.get(_SAMPLES, (1,))
    if bits == _BYTE and _SIGNED in samples:
        what = "signed numbers of 8 bits"
    elif bits > _BYTE and tags.get(_KIND) == _WHITE_IS_ZERO:
        what = f"greys of {bits} bits with white as 0"
    elif bits > _BYTE and len(image.getbands()) > 1 and tags.get(_PLANES) == _APART:
        what = f"colours of {bits} bits in planes apart"
    else:
        return bits if _BYTE < bits < _WORD else None
    raise DataError(
        f"{path} is a TIFF of {what}, which is not read; save it as PNG of 8 bits"
    )


def _check_jpeg_2000(path: Path) -> int | None:
    content = path.read_bytes()
    start = content.index(_SIZES)
    count = int.from_bytes(content[start + _COUNT : start + _FIRST])
    depth = content[start + _FIRST]
    bits = (depth & 0x7F) + 1
    if depth & 0x80 or bits > _WORD or (count > 1 and bits > _BYTE):
        raise DataError(
            f"{path} is a JPEG 2000 of {count} components of {bits} bits, signed or of "
            "colours that are not read; save it as PNG of 8 bits"
        )
    return bits if _BYTE < bits < _WORD else None
