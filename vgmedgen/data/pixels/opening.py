"""Opening an image file that is not DICOM, so that only DataError comes out.

The header is checked before anything is decoded: kind of file, size, number of pages,
and for PNG the checksum of every chunk, since a decoder passes over a wrong one.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.MpoImagePlugin import MpoImageFile
from PIL.TiffImagePlugin import TiffImageFile

from vgmedgen.data.pixels import MOST_BYTES, MOST_PIXELS
from vgmedgen.errors import DataError

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
UPRIGHT = 1  # of EXIF's orientations 1 to 8
TURNS = 8
_MOST_SCANS = 100  # of a JPEG; progressive ones have about ten
_TILE = (322, 323)  # width and height of a TIFF's tile
_MORE_IMAGES = 0xB002  # in a JPEG's multi-picture index: what each picture is
_STYLE, _WAVELET = b"\xff\x52", 13  # of JPEG 2000 (A.6.1); 0 is the lossy wavelet
_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">L4s")


def check_file(path: Path) -> None:
    """Refuse what is no file, or too large to be one image.

    Raises:
        DataError: so also if it cannot be looked at.
    """
    try:
        there, size = path.is_file(), path.stat().st_size
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}; restore the file"
        ) from error
    if not there:  # a pipe would be waited for, a device has no end
        raise DataError(f"{path} is not a regular file; restore or remove it")
    if size > MOST_BYTES:
        raise DataError(
            f"{path} has {size} bytes, more than the {MOST_BYTES} that one image may "
            "have; export a smaller image"
        )


@contextmanager
def opened(path: Path, *, whole: bool = True) -> Iterator[Image.Image]:
    """The image of a file whose header is sound; its pixels are not decoded yet.

    Whatever a decoder stumbles over, here or within the block, ends as one line.

    Args:
        path: the file.
        whole: whether all of it is looked at; without, its pixels must not be used.

    Raises:
        DataError: if the file is not one image of a kind that is read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_file(path)
            source: Path | io.BytesIO = path
            if whole:
                # from memory, since Pillow misreads a turned TIFF that it maps from disk
                content = path.read_bytes()
                _check_content(path, content)
                source = io.BytesIO(content)
            with Image.open(source, formats=FORMATS) as image:
                _check(path, image)
                yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} has more pixels than the {MOST_PIXELS} that an image may have; "
            "export it smaller"
        ) from error
    except Exception as error:  # whatever it is, the file is to blame
        raise DataError(
            f"{path} cannot be read as an image ({_cause(error)}); the file is damaged, "
            "incomplete or of another kind: restore or remove it"
        ) from error


def orientation(path: Path, image: Image.Image) -> int:
    """How the picture lies in its file, 1 to 8 as EXIF counts; 1 where nothing is said.

    Raises:
        DataError: if what the file says of it cannot be understood.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        told = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
        if isinstance(whole := image.info.get("exif"), bytes):
            Image.Exif().load(whole)  # once more, for what opening has passed over
    broken = any("orrupt" in str(one.message) for one in said)
    known = isinstance(told, int) and 0 <= told <= TURNS
    if broken or not known:
        raise DataError(
            f"{path} has EXIF data that do not say which side is up; save it anew, "
            "upright and without them"
        )
    return int(told) or UPRIGHT  # some programs write 0 where they do not know


def is_lossy(path: Path, image: Image.Image) -> bool:
    """Whether the file's compression may change values, as JPEG's does."""
    if image.format in ("JPEG", "MPO"):
        return True
    if image.format == "TIFF":
        return str(image.info.get("compression", "")).endswith("jpeg")
    if image.format == "WEBP":
        with path.open("rb") as stream:
            return b"VP8 " in stream.read(1 << 16)
    if image.format == "JPEG2000":
        content = path.read_bytes()
        return content[content.index(_STYLE) + _WAVELET] == 0
    return False


def _check(path: Path, image: Image.Image) -> None:
    width, height = image.size
    tile = [1, 1]
    if isinstance(image, TiffImageFile):
        tile = [int(image.tag_v2.get(tag, 1)) for tag in _TILE]
    if max(width * height, tile[0] * tile[1]) > MOST_PIXELS:
        raise DataError(
            f"{path} has {width}x{height} pixels, more than the {MOST_PIXELS} that an "
            "image may have; export it smaller"
        )
    if _several(image):
        raise DataError(
            f"{path} holds more than one picture (pages or frames), and one is expected; "
            "export each as a file of its own"
        )
    if any(
        one.codec_name in ("ppm", "ppm_plain") for one in getattr(image, "tile", ())
    ):
        raise DataError(
            f"{path} is a PPM or PGM as text or of an unusual range, which is not read; "
            "save it as PNG"
        )


def _several(image: Image.Image) -> bool:
    if isinstance(image, MpoImageFile):
        # a preview, or what a phone adds for bright screens, is no picture of its own
        others = (image.mpinfo or {}).get(_MORE_IMAGES, ())[1:]
        width, several = image.width, False
        for number, other in enumerate(others, start=1):
            image.seek(number)
            preview = other["Attribute"]["MPType"].startswith("Large Thumbnail")
            several |= not (preview or image.width * 2 <= width)
        image.seek(0)
        return several
    return bool(getattr(image, "is_animated", False))


def _check_content(path: Path, content: bytes) -> None:
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > _MOST_SCANS:
        raise DataError(
            f"{path} is a JPEG of more than {_MOST_SCANS} scans, as no camera writes; "
            "save it anew"
        )
    place = len(_PNG)
    while content.startswith(_PNG) and place < len(content):
        length, name = _CHUNK.unpack_from(content, place)
        end = place + _CHUNK.size + length
        if content[end : end + 4] != zlib.crc32(content[place + 4 : end]).to_bytes(4):
            raise DataError(
                f"{path} cannot be read as an image (wrong checksum); the file is damaged "
                "or incomplete: restore or remove it"
            )
        if name == b"IEND":
            return
        place = end + 4


def _cause(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(FORMATS)} of a usual kind"
    told = (
        re.sub(r"[^ -~]+", " ", str(error))[:80] if isinstance(error, OSError) else ""
    )
    return f"{type(error).__name__}: {told}" if told else type(error).__name__
