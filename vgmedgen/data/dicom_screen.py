"""Stored DICOM values as a screen would show them: 8 bit RGB.

Without a window or VOI LUT the range is that of the stored bits where these say
something, and by `vgmedgen.data.pixels.depth` where all 16 bits of a word are declared.
What then leaves open which greys are meant is refused.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from vgmedgen.data import dicom_tables
from vgmedgen.data.dicom_frame import COLOUR, PALETTE
from vgmedgen.data.pixels import depth
from vgmedgen.errors import DataError

_BYTE, _WORD = 8, 16  # bits
_GREYS = 256  # on the screen
_PALETTES = ("Red", "Green", "Blue")
_PRESENTED = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}  # PS3.3 C.11.6


def shown(path: Path, data: Dataset, stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of stored values (H, W), or (H, W, 3) that are RGB already.

    Raises:
        DataError: if a palette is missing or of a kind that is not read, or which greys
            or colours are meant is in doubt.
    """
    kind = str(data.PhotometricInterpretation)
    bits = int(data.BitsStored)
    if kind == PALETTE:
        return _coloured(path, data, stored)
    if kind in COLOUR:
        if bits <= _BYTE:
            scaled = stored.astype(np.int64) << (_BYTE - bits)
            return np.ascontiguousarray(scaled.clip(0, 255), dtype=np.uint8)
        known = bits if bits < _WORD else None
        return np.ascontiguousarray(depth.eight_bit(path, stored, known))
    presented = str(data.get("PresentationLUTShape") or _PRESENTED[kind])
    if presented != _PRESENTED[kind]:
        raise DataError(
            f"{path} is {kind} with a PresentationLUTShape of another kind, so that black "
            "and white are in doubt; export the image again"
        )
    used = patterns(data, stored)
    table = _screen(path, data, used)
    if kind == "MONOCHROME1":
        table = 255 - table
    return np.repeat(table[used][..., None], 3, axis=2)


def patterns(data: Dataset, stored: NDArray[Any]) -> NDArray[Any]:
    """The stored bits as unsigned numbers; those above may hold an old overlay."""
    whole = stored.astype(f"u{stored.itemsize}")
    used: NDArray[Any] = whole & ((1 << int(data.BitsStored)) - 1)
    return used


def _coloured(path: Path, data: Dataset, stored: NDArray[Any]) -> NDArray[np.uint8]:
    if "RedPaletteColorLookupTableData" not in data:
        raise DataError(
            f"{path} has a segmented palette or none, which is not read; export the "
            "image as RGB"
        )
    tables = [
        dicom_tables.read(
            path,
            data,
            (
                f"{name}PaletteColorLookupTableDescriptor",
                f"{name}PaletteColorLookupTableData",
            ),
            big_endian=_is_big_endian(data),
        )
        for name in _PALETTES
    ]
    bits = max(table.bits for table in tables)
    used = patterns(data, stored)
    return np.stack([table(used) >> (bits - _BYTE) for table in tables], -1).astype(
        np.uint8
    )


def _screen(path: Path, data: Dataset, used: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey on the screen of every pattern of the stored bits, MONOCHROME2."""
    bits = int(data.BitsStored)
    numbers: NDArray[Any] = np.arange(1 << bits)
    if data.get("PixelRepresentation"):  # two's complement
        half = 1 << (bits - 1)
        numbers = (numbers ^ half) - half
    there = np.unique(used)
    modality = _table(path, data, "ModalityLUTSequence", signed=numbers[-1] < 0)
    slope = 1.0
    if modality:
        seen: NDArray[Any] = modality(numbers)
    else:
        slope = _number(path, data, "RescaleSlope") or 1.0
        seen = numbers * slope + (_number(path, data, "RescaleIntercept") or 0.0)
    voi = _table(path, data, "VOILUTSequence", signed=bool(seen.min() < 0))
    if voi:
        screen: NDArray[Any] = voi(seen) >> (voi.bits - _BYTE)
    elif _number(path, data, "WindowCenter") is not None and _number(
        path, data, "WindowWidth"
    ):
        screen = _windowed(path, seen, data)
    elif modality:
        depth.refuse_flat(path, *_ends(seen[there]), float(1 << modality.bits))
        screen = seen >> (modality.bits - _BYTE)
    else:
        low, used_bits = _range(path, data, numbers[there])
        screen = ((numbers - low) * 256 / (1 << used_bits)).clip(0, 255)
        screen = 255 - screen.astype(np.uint8) if slope < 0 else screen
    screen = screen.astype(np.uint8)
    least, most = _ends(screen[there])
    if bits > _BYTE and len(there) > 1 and (most - least) * depth.FLAT < _GREYS:
        raise DataError(
            f"{path} shows greys from {least:g} to {most:g} of 255 by its window or "
            "lookup table, which would look flat; export it with a window that fits, or "
            "as 8 bit greys as they are to be seen"
        )
    return screen


def _range(path: Path, data: Dataset, there: NDArray[Any]) -> tuple[int, int]:
    """Number that is black and bits of the range, where no window says it.

    Args:
        path: of the file, for refusals.
        data: the header.
        there: every number that occurs, sorted.
    """
    bits = int(data.BitsStored)
    low, high = (int(end) for end in _ends(there))
    if not data.get("PixelRepresentation"):
        if bits < _WORD:
            if bits > _BYTE:
                depth.refuse_flat(path, low, high, float(1 << bits))
            return 0, bits
        told = data.get("LargestImagePixelValue")
        top = int(told) if isinstance(told, int) and high <= told < 1 << bits else high
        return 0, depth.of(path, np.append(there, top))
    if bits == _WORD:
        bits = next(
            one
            for one in depth.USUAL
            if -low <= 1 << (one - 1) and high < 1 << (one - 1)
        )
    if bits > _BYTE and (high - low) * 2 < (1 << bits) - 2:
        raise DataError(
            f"{path} holds signed values from {low} to {high} and no window, so that "
            "which of them are black and white is not said; export it with a window"
        )
    return -(1 << (bits - 1)), bits


def _windowed(
    path: Path, seen: NDArray[np.float64], data: Dataset
) -> NDArray[np.uint8]:
    """The first VOI window (PS3.3 C.11.2.1.2 and .3)."""
    centre = _number(path, data, "WindowCenter") or 0.0
    width = _number(path, data, "WindowWidth") or 0.0
    shape = str(data.get("VOILUTFunction") or "LINEAR")
    if width <= 0 or shape not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise DataError(
            f"{path} has a window of no width or of an unknown function; export the "
            "image again with a linear window or none"
        )
    if shape == "LINEAR":  # a window one wide is a step
        bright = (seen - centre + 0.5) / max(width - 1, 1e-9) + 0.5
    else:
        bright = (seen - centre) / width + 0.5
    if shape == "SIGMOID":
        bright = 1 / (1 + np.exp((2 - 4 * bright).clip(-60, 60)))
    return (bright.clip(0, 1) * 255).round().astype(np.uint8)


def _table(
    path: Path, data: Dataset, keyword: str, *, signed: bool
) -> dicom_tables.Table | None:
    """The first lookup table of a sequence; None where there is none."""
    if not data.get(keyword):
        return None
    item = data[keyword].value[0]
    return dicom_tables.read(
        path, item, big_endian=_is_big_endian(data), signed=bool(signed)
    )


def _is_big_endian(data: Dataset) -> bool:
    return not data.file_meta.TransferSyntaxUID.is_little_endian


def _ends(values: NDArray[Any]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _number(path: Path, data: Dataset, keyword: str) -> float | None:
    """The first value of an attribute of numbers; None where there is none.

    Raises:
        DataError: if it is no finite number.
    """
    value = data.get(keyword)
    if value is None or value == "":
        return None
    try:
        first = float(value[0] if isinstance(value, MultiValue | list) else value)
    except (TypeError, ValueError):  # its text would quote the value
        first = math.nan
    if not math.isfinite(first):
        raise DataError(
            f"{path}: {keyword} is no finite number; export the image again"
        )
    return first
