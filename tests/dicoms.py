"""DICOM files made in memory, as a hospital's machines write them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from vgmedgen.data import dicom
from vgmedgen.errors import DataError

JPEG = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
HTJ2K = "1.2.840.10008.1.2.4.201"
MPEG = "1.2.840.10008.1.2.4.102"


def dataset(
    values: np.ndarray, kind: str, *, syntax: str = ExplicitVRLittleEndian, **more: Any
) -> Dataset:
    """A header and its pixels; `more` sets or replaces attributes by keyword."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"  # secondary capture
    data.SOPInstanceUID = "2.25.7"
    data.PhotometricInterpretation = kind
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel = values.shape[2] if values.ndim == 3 else 1
    if values.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * values.dtype.itemsize
    data.PixelRepresentation = int(values.dtype.kind == "i")
    raw = values.tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    data["PixelData"].VR = "OW" if data.BitsAllocated > 8 else "OB"
    for name, value in more.items():
        setattr(data, name, value)
    data.HighBit = more.get("HighBit", data.BitsStored - 1)
    return data


def inside(depth: int, **more: Any) -> Sequence:
    """A sequence of one item with these attributes, within `depth` more sequences."""
    item = Dataset()
    for name, value in more.items():
        setattr(item, name, value)
    for _ in range(depth):
        around = Dataset()
        around.RequestAttributesSequence = Sequence([item])
        item = around
    return Sequence([item])


def content(data: Dataset) -> bytes:
    """A data set as the bytes of a file."""
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def save(path: Path, data: Dataset) -> Path:
    """Write a data set as a file."""
    path.write_bytes(content(data))
    return path


def encapsulated(data: Dataset, frame: bytes, syntax: str) -> Dataset:
    """The same header around a compressed frame."""
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    return data


def grey(dtype: type = np.uint8, high: int = 256, low: int = 0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(low, high, (23, 17), dtype=dtype)


def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 17, 3), dtype=np.uint8)


def read(tmp_path: Path, data: Dataset) -> np.ndarray:
    return dicom.read_pixels(save(tmp_path / "a.dcm", data))


def lut(entries: np.ndarray, first: int, bits: int = 16) -> Sequence:
    table = Dataset()
    table.LUTDescriptor = [len(entries), first, bits]
    table["LUTDescriptor"].VR = "US"
    table.add_new(0x00283006, "OW", entries.astype(np.uint16).tobytes())
    table.ModalityLUTType = "US"
    return Sequence([table])


def smooth() -> np.ndarray:
    down, right = np.mgrid[0:24, 0:16]
    return np.stack([down * 10, right * 15, 255 - down * 5], -1).astype(np.uint8)


def compressed(values: np.ndarray, name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, name, **options)
    return stream.getvalue()


def refused(path: Path, read: Callable[[Path], Any] = dicom.read_pixels) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message
