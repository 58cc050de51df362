"""A secret anywhere in a DICOM file: never told, and never let in under another type."""

import logging
import struct
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.dicoms import content, dataset, save
from vgmedgen.data import adapters, dicom
from vgmedgen.errors import DataError

SECRET = "ZZSECRETZZ"  # noqa: S105  # a name, not a password
TYPES = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB"),
    *("OD", "OF", "OL", "OV", "OW", "PN", "SH", "SL", "SQ", "SS", "ST", "SV", "TM"),
    *("UC", "UI", "UL", "UN", "UR", "US", "UT", "UV", "ZZ"),
)
LONG_HEAD = (
    "OB",
    "OD",
    "OF",
    "OL",
    "OV",
    "OW",
    "SQ",
    "SV",
    "UC",
    "UN",
    "UR",
    "UT",
    "UV",
)
READ = (  # attributes that reading has to look at
    *("PatientName", "PatientID", "PatientIdentityRemoved", "BurnedInAnnotation"),
    *("SpecificCharacterSet", "Rows", "BitsStored", "PixelRepresentation"),
    *("NumberOfFrames", "PhotometricInterpretation", "RescaleSlope", "WindowCenter"),
    *("VOILUTFunction", "PlanarConfiguration", "ModalityLUTSequence", "StudyID"),
    *("SyntheticData", "OperatorsName"),
)


def grey() -> Dataset:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    return dataset(values, "MONOCHROME2", WindowCenter=9, WindowWidth=9)


def element(tag: int, kind: str, value: bytes) -> bytes:
    """One element of explicit VR, little endian, whatever the type may hold."""
    value += b" " * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind.encode()
    if kind in LONG_HEAD:
        return head + b"\0\0" + struct.pack("<L", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def planted(path: Path, tag: int, kind: str) -> Path:
    """A file in which one element is of a type, and holds the secret."""
    data = grey()
    if tag in data:
        del data[tag]
    parts = [(item.tag, _raw(item)) for item in data]
    parts.append((tag, element(tag, kind, SECRET.encode())))
    whole = content(grey())
    start = whole.index(_raw(next(iter(grey()))))
    path.write_bytes(whole[:start] + b"".join(raw for _, raw in sorted(parts)))
    return path


def _raw(item) -> bytes:
    alone = Dataset()
    alone.add(item)
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, alone)
    return stream.getvalue()


def told(path: Path, reader) -> str:
    """Everything that a reader says of a file, by any way."""
    try:
        reader(path)
    except DataError as error:
        return str(error) + "".join(traceback.format_exception(error))
    return ""


@pytest.mark.parametrize("name", READ)
def test_a_secret_in_an_element_of_any_type_is_never_told(tmp_path, caplog, name):
    caplog.set_level(logging.DEBUG)
    refused = 0
    tag = tag_for_keyword(name)
    assert tag is not None
    for kind in TYPES:
        path = planted(tmp_path / f"{kind}.dcm", tag, kind)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for reader in (dicom.read_pixels, dicom.read_mask, dicom.identity):
                said = told(path, reader)
                refused += bool(said)
                assert SECRET not in said, (kind, reader)
        assert not [one for one in warned if SECRET in str(one.message)]
    assert refused, "nothing stumbled: the secret was not looked at"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("kind", ["LO", "SH", "UN", "LT", "PN", "ST", "CS", "OB", "UR"])
@pytest.mark.parametrize(
    "name",
    [
        *("OperatorsName", "OtherPatientNames", "PatientName"),
        *("ImageComments", "MedicalAlerts", "StudyDescription", "StationName"),
        *("RequestAttributesSequence", "OperatorIdentificationSequence"),
    ],
)
def test_a_name_is_one_under_whatever_type_it_is_written(tmp_path, name, kind):
    tag = tag_for_keyword(name)
    path = planted(tmp_path / "a.dcm", tag, kind)
    if name.endswith("Sequence") and kind == "UN":  # read as a sequence, and is none
        said = told(path, dicom.identity)
        assert "cannot be read as DICOM" in said
        assert SECRET not in said
    else:
        assert dicom.identity(path) == [name]


@pytest.mark.parametrize("kind", ["SQ", "UN"])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_nothing_hides_between_the_items_of_a_sequence(tmp_path, kind, before):
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    whole = content(grey())
    for rest, refused in ((b"", False), (SECRET.encode(), True)):
        held = element(tag_for_keyword("RequestAttributesSequence"), kind, b"")
        held = held[:-4] + struct.pack("<L", len(item * before + rest))
        at = whole.index(struct.pack("<HH", 0x7FE0, 0x10))
        path = tmp_path / "a.dcm"
        path.write_bytes(whole[:at] + held + item * before + rest + whole[at:])
        said = told(path, dicom.identity)
        assert ("cannot be read as DICOM" in said) == refused
        assert SECRET not in said


@pytest.mark.parametrize(
    ("kind", "found"), [("LO", []), ("SH", []), ("PN", ["StationName"])]
)
def test_a_description_that_is_a_persons_name_is_none(tmp_path, kind, found):
    data = dataset(_image(), "MONOCHROME2", PatientIdentityRemoved="YES")
    data.add_new(tag_for_keyword("StationName"), kind, SECRET)
    assert dicom.identity(save(tmp_path / "a.dcm", data)) == found


@pytest.mark.parametrize(
    "name",
    [
        "AdditionalPatientHistory",
        "FillerOrderNumberImagingServiceRequest",
        "PatientComments",
        "PlacerOrderNumberImagingServiceRequest",
        "StudyID",
    ],
)
def test_comments_and_the_numbers_of_orders_identify(tmp_path, name):
    path = save(tmp_path / "a.dcm", dataset(_image(), "MONOCHROME2", **{name: SECRET}))
    assert dicom.identity(path) == [name]
    (tmp_path / "manifest.csv").write_text("image,caption\na.dcm,a lesion\n")
    with pytest.raises(DataError, match=name) as caught:
        adapters.read("table", tmp_path)
    assert SECRET not in str(caught.value)
    assert adapters.read("table", tmp_path, identified=True).records


def test_a_study_id_may_be_a_pseudonym(tmp_path):
    more = {"StudyID": "7", "PatientIdentityRemoved": "YES"}
    path = save(tmp_path / "a.dcm", dataset(_image(), "MONOCHROME2", **more))
    assert dicom.identity(path) == []


@pytest.mark.parametrize("kind", ["LO", "SH", "LT", "ST", "UT", "PN", "UN", "UC"])
@pytest.mark.parametrize("group", [0x0011, 0x7FE1])
def test_private_words_identify_before_and_after_the_pixels(tmp_path, kind, group):
    data = grey()
    block = data.private_block(group, "ACME", create=True)
    block.add_new(1, kind, SECRET.encode() if kind == "UN" else SECRET)
    for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"):
        data.file_meta.TransferSyntaxUID = syntax
        path = save(tmp_path / f"{syntax}.dcm", data)
        assert dicom.identity(path) == [f"private ({group:04X},1001)"]


def test_private_numbers_identify_nobody(tmp_path):
    data = grey()
    block = data.private_block(0x0011, "ACME", create=True)
    block.add_new(1, "US", 0x4142)
    block.add_new(2, "FL", 1.5)
    block.add_new(3, "UN", b"\1\0\2\0")
    assert dicom.identity(save(tmp_path / "a.dcm", data)) == []


@pytest.mark.parametrize(
    ("preamble", "found"),
    [
        (bytes(128), []),
        (b"II*\0".ljust(128, b"\0"), []),
        (b"MM\0*\0\0\0\x08".ljust(128, b"\0"), []),
        (SECRET.encode().ljust(128, b"\0"), ["preamble"]),
        ((b"II*\0" + SECRET.encode()).ljust(128, b"\0"), ["preamble"]),
        (bytes(100) + SECRET.encode().ljust(28, b"\0"), ["preamble"]),
    ],
)
def test_a_preamble_is_empty_or_a_tiff_header(tmp_path, preamble, found):
    path = tmp_path / "a.dcm"
    path.write_bytes(preamble + content(grey())[128:])
    assert dicom.identity(path) == found


@pytest.mark.parametrize("tail", [SECRET * 10, "Doe", "\0\0\0\0Doe Jane"])
def test_bytes_after_the_end_do_not_come_in(tmp_path, tail):
    path = tmp_path / "a.dcm"
    path.write_bytes(content(grey()) + bytes(600))  # devices fill up a block
    assert dicom.identity(path) == []
    path.write_bytes(content(grey()) + tail.encode())
    said = told(path, dicom.identity)
    assert said or dicom.identity(path)  # refused as damaged, or told of
    assert SECRET not in said


def test_padding_overlay_labels_and_meta_information_are_looked_at(tmp_path):
    data = grey()
    data.DataSetTrailingPadding = SECRET.encode()
    data.add_new(0x60000022, "LO", SECRET)
    data.add_new(0x60021500, "LO", SECRET)
    data.file_meta.PrivateInformationCreatorUID = "1.2.3"
    data.file_meta.PrivateInformation = SECRET.encode()
    assert dicom.identity(save(tmp_path / "a.dcm", data)) == [
        *("DataSetTrailingPadding", "OverlayDescription", "OverlayLabel"),
        "PrivateInformation",
    ]


def test_pixels_are_left_on_disk_while_a_header_is_looked_at(tmp_path, monkeypatch):
    import pydicom

    path = save(
        tmp_path / "a.dcm", dataset(np.zeros((700, 700), np.uint8), "MONOCHROME2")
    )
    parse, seen = dicom.dcmread, []

    def noted(*args, **more) -> pydicom.Dataset:
        seen.append(parse(*args, **more))
        return seen[-1]

    monkeypatch.setattr(dicom, "dcmread", noted)
    assert dicom.identity(path) == []
    raw = seen[0].get_item(0x7FE00010, keep_deferred=True)
    assert (raw.length, raw.value) == (490_000, None)


def _image() -> np.ndarray:
    return np.zeros((16, 16), np.uint8)
