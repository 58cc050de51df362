"""DICOM files made in memory, as a hospital's machines write them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian


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
