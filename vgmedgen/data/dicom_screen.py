"""Stored DICOM values as a screen would show them: 8 bit RGB."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi

from vgmedgen.data.dicom_frame import COLOUR, PALETTE
from vgmedgen.errors import DataError


def shown(path: Path, data: Dataset, stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of stored values (H, W), or (H, W, 3) that are RGB already.

    Raises:
        DataError: if a palette is missing or of a kind that is not read.
    """
    kind = str(data.PhotometricInterpretation)
    bits = int(data.BitsStored)
    if kind == PALETTE:
        return _coloured(path, data, stored)
    if kind in COLOUR:
        shift = bits - 8
        scaled = stored >> shift if shift > 0 else stored << -shift
        return np.ascontiguousarray(scaled.clip(0, 255), dtype=np.uint8)
    table = _screen(path, data)
    if kind == "MONOCHROME1":
        table = 255 - table
    patterns = stored.astype(f"u{stored.itemsize}")
    grey = table[patterns & ((1 << bits) - 1)]  # bits above may hold an old overlay
    return np.repeat(grey[..., None], 3, axis=2)


def _coloured(path: Path, data: Dataset, stored: NDArray[Any]) -> NDArray[np.uint8]:
    if "RedPaletteColorLookupTableData" not in data:
        raise DataError(
            f"{path} has a segmented palette or none, which is not read; export the "
            "image as RGB"
        )
    colours = apply_color_lut(stored, data)[..., :3]
    wide = colours.dtype != np.uint8
    return np.ascontiguousarray(colours >> 8 if wide else colours, dtype=np.uint8)


def _screen(path: Path, data: Dataset) -> NDArray[np.uint8]:
    """Grey on the screen of every pattern of the stored bits, MONOCHROME2."""
    bits = int(data.BitsStored)
    values: NDArray[Any] = np.arange(1 << bits)
    if data.get("PixelRepresentation"):  # two's complement
        half = 1 << (bits - 1)
        values = (values ^ half) - half
    if data.get("ModalityLUTSequence"):
        seen = apply_modality_lut(values, data).astype(np.float64)
        low, span = 0.0, float(1 << int(data.ModalityLUTSequence[0].LUTDescriptor[2]))
    else:
        slope = _number(path, data, "RescaleSlope") or 1.0
        seen = values * slope + (_number(path, data, "RescaleIntercept") or 0.0)
        low, span = float(seen.min()), abs(slope) * (1 << bits)
    if data.get("VOILUTSequence"):
        depth = int(data.VOILUTSequence[0].LUTDescriptor[2])
        seen = apply_voi(seen.round().astype(np.int64), data).astype(np.float64)
        low, span = 0.0, float(1 << depth)
    elif _number(path, data, "WindowCenter") is not None and _number(
        path, data, "WindowWidth"
    ):
        return _windowed(path, seen, data)
    screen: NDArray[np.float64] = (seen - low) * 256 / span
    return screen.clip(0, 255).astype(np.uint8)


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
