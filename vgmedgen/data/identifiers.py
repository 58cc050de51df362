"""Which attributes of a DICOM header still say who somebody is.

The direct identifiers of the Basic Application Level Confidentiality Profile (DICOM
PS3.15, annex E): every person's name, under whatever type it is written, and what leads
to the patient in a hospital's systems or at home. What could hold any text counts as if
it did: private elements, comments, reasons, overlay labels, the preamble. Descriptions,
places and machines count too, unless the header says that the patient's identity was
removed. Not among them are what names nobody: codes and their meanings, manufacturer,
model and software versions, UIDs, and dates of the examination.
"""

import re
from collections.abc import Iterator

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from vgmedgen.data.identifier_tables import (
    DESCRIPTIONS,
    EARLIER,
    IDENTIFYING,
    PSEUDONYMS,
    TEXTS,
)

CREATOR = "VGMEDGEN"
"""Private creator, in group 0009, of every DICOM file that this system writes."""

PREAMBLE = "preamble"
_TIFF = (b"II*\0", b"MM\0*")  # a file may be both
_PERSON, _SEQUENCE = "PN", "SQ"
_NUMBERS = (  # types that hold numbers, dates, codes or rows of numbers
    *("AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "OD", "OF", "OL", "OV"),
    *("OW", "SL", "SS", "SV", "TM", "UI", "UL", "US", "UV"),
)
_CONTROL = re.compile(rb"[\0-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_LEGIBLE = re.compile(rb"[ -~]{4}")
_PRIVATE = "private"
_SHOWN = ("BurnedInAnnotation", "RecognizableVisualFeatures")  # in the pixels, if YES
_DEEPEST = 64  # sequences within sequences
_ITEM, _ITEM_BIG = b"\xfe\xff", b"\xff\xfe"  # first bytes, by the order of bytes
_ENDLESS = 0xFFFFFFFF  # length of an item that ends by a mark
_NOTHING: frozenset[str] = frozenset()


def of(data: Dataset) -> list[str]:
    """Names of the attributes that identify, sorted; none of their values.

    A name and IDs of patient and study count as pseudonyms where Patient Identity
    Removed is YES, and descriptions as cleaned; that says nothing of private sequences
    and of what the header said before. Sequences are searched whole, private ones too,
    and so are the file's preamble and its meta information.

    Raises:
        ValueError: if sequences lie deeper than any real file has them, or are none.
    """
    removed = str(data.get("PatientIdentityRemoved") or "").strip().upper() == "YES"
    left = PSEUDONYMS | DESCRIPTIONS if removed else _NOTHING
    found = set(_search(data, left, 0)) | set(
        _search(getattr(data, "file_meta", None) or {}, left, 0)
    )
    if _says_something(getattr(data, "preamble", None) or b""):
        found.add(PREAMBLE)
    if is_synthetic(data):  # no patient's comments: such a file never trains anyway
        found = {name for name in found - TEXTS if not name.startswith(_PRIVATE)}
    return sorted(found)


def is_synthetic(data: Dataset) -> bool:
    """Whether a header says that a generator made the image: this system, or another."""
    said = str(data.get("SyntheticData") or "").strip().upper() == "YES"
    creators = (data.get((0x0009, place)) for place in range(0x10, 0x100))
    return said or any(
        str(element.value).strip() == CREATOR for element in creators if element
    )


def _search(data: Dataset, left: frozenset[str], depth: int) -> Iterator[str]:
    """Names of what identifies, in whatever order; `left` are those that may stay."""
    if depth > _DEEPEST:
        raise ValueError(f"sequences within sequences, more than {_DEEPEST} deep")
    for tag in data.keys():  # noqa: SIM118 items would convert every value, odd ones too
        keyword = keyword_for_tag(tag)
        if not (keyword in IDENTIFYING or keyword in _SHOWN or _kind(data, tag)):
            continue
        raw, element = data.get_item(tag), data[tag]
        if element.VR == _SEQUENCE:
            _check_items(raw)
            if keyword in IDENTIFYING and keyword not in left and element.value:
                yield keyword
            within = left if keyword and keyword not in EARLIER else _NOTHING
            for item in element.value:
                yield from _search(item, within, depth + 1)
        elif not (keyword in left and _is_plain(element)) and _tells(element, keyword):
            yield keyword or f"{_PRIVATE} {element.tag}"


def _check_items(raw: DataElement | RawDataElement | None) -> None:
    """Refuse what is between items, which a reader passes over without a word."""
    value = raw.value if isinstance(raw, RawDataElement) else None
    content = (value or b"").rstrip(b"\0")
    place = 0
    while place < len(content):
        first, length = content[place : place + 2], content[place + 4 : place + 8]
        if first not in (_ITEM, _ITEM_BIG):
            raise ValueError("a sequence holds something else than items")
        size = int.from_bytes(length, "little" if first == _ITEM else "big")
        if size == _ENDLESS:
            return
        place += 8 + size


def _kind(data: Dataset, tag: BaseTag) -> bool:
    """Whether an element may be a person's name, a sequence, or any text of its own."""
    written = data.get_item(tag, keep_deferred=True).VR
    meant = _meant(tag)
    if meant is None:
        return not tag.is_private_creator and written not in _NUMBERS
    return meant in (_PERSON, _SEQUENCE) or written in (_PERSON, _SEQUENCE)


def _meant(tag: BaseTag) -> str | None:
    """What the dictionary says that an element is; None where it has none such."""
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return None


def _is_plain(element: DataElement) -> bool:
    """Whether an element is no person's name, or is meant to be one."""
    return element.VR != _PERSON or _meant(element.tag) == _PERSON


def _tells(element: DataElement, keyword: str) -> bool:
    value = b"" if element.value is None else element.value
    if keyword in _SHOWN:
        return str(value).strip().upper() == "YES"
    if isinstance(value, bytes):
        if not keyword:
            return _legible(value)
        return bool(value.strip(b" ^=\0"))
    said = str(value).strip(" ^=\0")
    # nothing that is unknown gets here but names and words, and words for a sequence
    named = element.VR == _PERSON or _meant(element.tag) in (_PERSON, _SEQUENCE)
    return bool(said) and (named or keyword in IDENTIFYING or not keyword)


def _legible(value: bytes) -> bool:
    """Whether bytes of a kind that nobody told may be words."""
    text = value.rstrip(b"\0 ")
    whole = len(text) > 1 and not _CONTROL.search(text)
    return whole or bool(_LEGIBLE.search(text))


def _says_something(preamble: bytes) -> bool:
    """Whether a preamble is neither empty nor the header of a TIFF file."""
    if preamble.startswith(_TIFF):
        return bool(_LEGIBLE.search(preamble[4:]))
    return bool(preamble.strip(b"\0"))
