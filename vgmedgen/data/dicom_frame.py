"""The one frame of a DICOM file, checked before it is decoded."""

import io
import struct
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder

from vgmedgen.data.pixels import MOST_PIXELS
from vgmedgen.errors import DataError

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"
# the others of the standard (PS3.3 C.7.6.3.1.2), now and before: these may be told
_NOT_READ = ("HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB", "")

_RLE = "1.2.840.10008.1.2.5"
_RLE_HEADER = struct.Struct("<16L")  # number of segments, 15 offsets
_RLE_NOTHING = 128  # below: so many bytes and one follow; above: one byte, repeated
_JP2 = b"\0\0\0\x0cjP  "
_DECODERS = ("pydicom", "pillow", "pylibjpeg", "pyjpegls", "gdcm")  # in this order


def decode(path: Path, data: Dataset) -> NDArray[Any]:
    """Values as stored: (H, W), or (H, W, 3) as RGB.

    Raises:
        DataError: if it is no single image of a usual kind, or no decoder reads it.
    """
    _check_shape(path, data)
    syntax = data.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    ready = decoder.available_plugins if decoder else ()
    chosen = [name for name in _DECODERS if name in ready]
    if decoder is None or not (chosen or not syntax.is_encapsulated):
        standard = syntax.name != str(syntax)  # any other text may be anybody's
        named = f"{syntax.name} ({syntax})" if standard else "something unknown"
        raise DataError(
            f"{path} is compressed as {named}, which no installed decoder reads; export "
            "it uncompressed (explicit VR little endian)"
        )
    if syntax.is_encapsulated:
        _check_frame(path, data, str(syntax))
    plugin = chosen[0] if chosen else ""
    try:
        values: NDArray[Any] = decoder.as_array(data, index=0, decoding_plugin=plugin)[
            0
        ]
    except RuntimeError:  # any decoder's complaint; it may quote what the file holds
        raise DataError(
            f"{path} is compressed as {syntax.name} and cannot be decompressed here; "
            "export it uncompressed (explicit VR little endian)"
        ) from None
    return values


def _check_shape(path: Path, data: Dataset) -> None:
    """Refuse what is not one image of a usual kind, before anything is decoded."""
    if "PixelData" not in data:
        raise DataError(
            f"{path} holds no pixel data; it is no image, or the file is incomplete: "
            "export the image again or remove the file"
        )
    frames = int(data.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DataError(
            f"{path} holds {frames} frames, and one image is expected; export single "
            "frames as files of their own"
        )
    kind = str(data.get("PhotometricInterpretation") or "")
    if kind not in (*GREY, *COLOUR, PALETTE):
        named = f"'{kind}'" if kind in _NOT_READ else "of its own"
        raise DataError(
            f"{path} has a photometric interpretation {named}; these are read: "
            f"{', '.join((*GREY, *COLOUR, PALETTE))}: export the image as RGB"
        )
    height, width = int(data.Rows), int(data.Columns)
    if not (height > 0 and width > 0 and height * width <= MOST_PIXELS):
        raise DataError(
            f"{path} claims {width}x{height} pixels; an image has at least 1 and at most "
            f"{MOST_PIXELS}: export it again, smaller"
        )
    bits = int(data.BitsAllocated), int(data.BitsStored), int(data.HighBit)
    samples = int(data.SamplesPerPixel)
    usual = bits[0] in (1, 8, 16) and 1 <= bits[1] <= bits[0] and bits[2] == bits[1] - 1
    if not usual or samples != (3 if kind in COLOUR else 1):
        raise DataError(
            f"{path} has {samples} samples of {bits[1]} in {bits[0]} bits, highest "
            f"{bits[2]}, as {kind}; greys and palettes of one sample, colours of three, "
            "8 or 16 bits each, are read: export the image as RGB of 8 bits"
        )


def _check_frame(path: Path, data: Dataset, syntax: str) -> None:
    """Refuse a compressed frame that would unpack to more than the header says."""
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    pixels = data.Rows * data.Columns
    if syntax == _RLE:
        count, *offsets = _RLE_HEADER.unpack_from(frame)
        ends = [*offsets[1:count], len(frame)]
        longest = pixels + 2  # a segment may be padded
        for start, end in zip(offsets[:count], ends, strict=True):
            if _unpacked(frame[start:end], longest) > longest:
                raise DataError(
                    f"{path} unpacks to more than its {data.Columns}x{data.Rows} pixels; "
                    "the file is damaged: export it again or remove it"
                )
        return
    if frame.startswith(_JP2):  # pydicom may follow its boxes in a circle for ever
        raise DataError(
            f"{path} holds a JP2 file where DICOM wants a bare JPEG 2000 codestream; "
            "export it uncompressed (explicit VR little endian)"
        )
    try:
        with Image.open(io.BytesIO(frame)) as opened:
            size = opened.size
    except UnidentifiedImageError:
        return  # not of Pillow's kinds; its decoder compares the sizes
    if size != (data.Columns, data.Rows):
        raise DataError(
            f"{path} holds a compressed image of {size[0]}x{size[1]} pixels and claims "
            f"{data.Columns}x{data.Rows}; the file is damaged: export it again or remove it"
        )


def _unpacked(segment: bytes, limit: int) -> int:
    """Bytes that a run-length encoded segment unpacks to; stops counting past `limit`."""
    total = place = 0
    while place < len(segment) and total <= limit:
        count = segment[place]
        if count < _RLE_NOTHING:
            total += count + 1
            place += count + 2
        elif count > _RLE_NOTHING:
            total += 257 - count
            place += 2
        else:
            place += 1
    return total
