"""DICOM as training input: its pixels, and whether its header still names somebody.

Only single images are read: 8 or 16 bit greys through their Modality LUT and first VOI
LUT or window, RGB, YBR and palettes. What is unusual is refused by name. A header is
hostile until it has been checked: sizes are compared before anything is allocated, and
whatever a parser or decoder stumbles over ends as one DataError.
"""

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from vgmedgen.data import dicom_frame, dicom_screen, identifiers
from vgmedgen.data.pixels import MOST_BYTES, lesion
from vgmedgen.data.pixels.opening import check_file
from vgmedgen.data.pixels.raster import Raster
from vgmedgen.errors import DataError

SUFFIXES = (".dcm", ".dicom")
_LONG = 1 << 16  # bytes of a value that is left on disk while a header is looked at

_MAGIC = (128, b"DICM")  # where the word stands
_DEFLATED = "1.2.840.10008.1.2.1.99"
_ENDLESS = 0xFFFFFFFF  # length of an element that ends by a mark
_END = b"\xfe\xff\xdd\xe0"  # the mark, and then zeros
_PIXELS = 0x7FE00010
_LOSSY = (  # transfer syntaxes: JPEG, near-lossless JPEG-LS, JPEG 2000, HTJ2K
    *("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"),
    *("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"),
)

# its log quotes values, as its warnings do; nothing of it is passed on
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a header says, without any value that could name somebody.

    Attributes:
        identity: Attributes that still identify, by name.
        patient: Short digest of the patient's ID; empty where there is none.
        synthetic: Whether a generator made the image.
    """

    identity: tuple[str, ...]
    patient: str
    synthetic: bool


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its name, or by its content whatever its name.

    Raises:
        DataError: if the file cannot be read.
    """
    if path.suffix.lower() in SUFFIXES:
        return True
    check_file(path)
    try:
        with path.open("rb") as stream:
            return stream.read(132)[_MAGIC[0] :] == _MAGIC[1]
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}; restore the file"
        ) from error


def identity(path: Path) -> list[str]:
    """Names, never values, of the attributes by which a file still identifies somebody.

    Raises:
        DataError: if the header cannot be read.
    """
    return list(header(path).identity)


def header(path: Path) -> Header:
    """What a header says; pixels are not read.

    Raises:
        DataError: if the header cannot be read.
    """
    try:
        told = path.stat()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}; restore the file"
        ) from error
    return _header(path, told.st_size, told.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _header(path: Path, *_: int) -> Header:
    with _guarded(path):
        data = _parse(path, pixels=False)
        name = f"{data.get('IssuerOfPatientID') or ''}\n{data.get('PatientID') or ''}"
        digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()
        named = identifiers.of(data)
        if _goes_on(path, data):
            named.append("bytes after the end")
        return Header(
            identity=tuple(named),
            patient=f"patient-{digest[:12]}" if data.get("PatientID") else "",
            synthetic=identifiers.is_synthetic(data),
        )


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """One image as a screen would show it.

    Greys go through the Modality LUT or rescale and the first VOI LUT or window; without
    a window the range of the stored bits becomes 0 to 255, or where the header leaves
    all 16 bits open the range of the smallest usual depth that holds the values.

    Returns:
        Pixels (H, W, 3) of 8 bits, RGB.

    Raises:
        DataError: if there is no single image, or one that cannot be read safely.
    """
    with _guarded(path):
        data = _parse(path, pixels=True)
        return dicom_screen.shown(path, data, dicom_frame.decode(path, data))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """One mask: what is not background, as `vgmedgen.data.pixels.lesion` decides.

    Greys count as they are stored, whatever window would show them; in MONOCHROME1, which
    is shown inverted, 0 is the brightest.

    Returns:
        (H, W).

    Raises:
        DataError: as `read_pixels`, and if it holds several labels.
    """
    with _guarded(path):
        data = _parse(path, pixels=True)
        stored = dicom_frame.decode(path, data)
        lossy = _is_lossy(data)
        kind = str(data.PhotometricInterpretation)
        tables = data.get("ModalityLUTSequence") or data.get("VOILUTSequence")
        turned = float(data.get("RescaleSlope") or 1) < 0
        if kind not in dicom_frame.GREY or tables or turned:
            shown = dicom_screen.shown(path, data, stored)
            places = stored if kind == dicom_frame.PALETTE else None
            return lesion.of(path, Raster(values=shown, index=places, lossy=lossy))
        if data.get("PixelRepresentation") and stored.min() < 0:
            raise DataError(
                f"mask {path} holds negative numbers; export it as 0 for background and "
                "255 for lesion"
            )
        numbers = dicom_screen.patterns(data, stored)
        if kind == "MONOCHROME1":
            return _inverted(path, numbers, int(data.BitsStored), lossy=lossy)
        return lesion.of_grey(path, numbers, lossy=lossy)


def _inverted(
    path: Path, numbers: NDArray[Any], bits: int, *, lossy: bool
) -> NDArray[np.bool_]:
    """The lesion of a mask whose 0 is white, which may be meant as a label or as light."""
    levels = np.unique(numbers)
    if len(levels) == 1:
        raise DataError(
            f"mask {path} is MONOCHROME1 and the same everywhere, so that all or nothing "
            "may be lesion; export it as MONOCHROME2"
        )
    top = levels[-1] if len(levels) == 2 else (1 << bits) - 1  # noqa: PLR2004 - labels
    return lesion.of_grey(path, top - numbers, lossy=lossy)


def _is_lossy(data: Dataset) -> bool:
    told = str(data.get("LossyImageCompression") or "")
    return told == "01" or data.file_meta.TransferSyntaxUID in _LOSSY


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Turn whatever a damaged or hostile file causes into one line.

    Of a parser's or decoder's own complaint only the type is told, and its warnings and
    its log are silenced: they quote values, which may be a patient's name.
    """
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever it is, the file is to blame
        raise DataError(
            f"{path} cannot be read as DICOM ({type(error).__name__}); the file is "
            "damaged or incomplete: export it again or remove it"
        ) from None


def _parse(path: Path, *, pixels: bool) -> Dataset:
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise DataError(
            f"{path} has {size} bytes, more than the {MOST_BYTES} that one DICOM image "
            "may have; export a smaller image"
        )
    try:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID", "")
        if syntax == _DEFLATED:  # a small file may inflate to any size
            raise DataError(
                f"{path} is deflated as a whole (transfer syntax {syntax}), which is not "
                "read; export it as explicit VR little endian"
            )
        # what follows the pixels belongs to the header too
        return dcmread(path, defer_size=None if pixels else _LONG)
    except InvalidDicomError:
        raise DataError(
            f"{path} is no DICOM file: it lacks the word DICM at byte 128; export it "
            "again as a DICOM file (part 10), or remove it"
        ) from None


def _goes_on(path: Path, data: Dataset) -> bool:
    """Whether anything but zeros follows the last element of a file.

    Words that follow it may also be read as an element, of a length that no file has.
    """
    tags = list(data.keys())
    last = data.get_item(tags[-1], keep_deferred=True) if tags else None
    if not isinstance(last, RawDataElement):
        return False  # a sequence, whose reader stops where it ends
    endless = last.length == _ENDLESS
    if not endless and last.value_tell + last.length > path.stat().st_size:
        return bool(last.tag != _PIXELS)  # of which some are missing
    with path.open("rb") as stream:
        stream.seek(last.value_tell + (0 if endless else last.length))
        rest = stream.read().rstrip(b"\0")
    return not rest.endswith(_END) if endless else bool(rest)
