"""Texts, descriptions and places of a DICOM header: which come in, and when."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom._dicom_dict import RepeatersDictionary
from pydicom.datadict import (
    dictionary_has_tag,
    dictionary_VR,
    keyword_dict,
    tag_for_keyword,
)
from pydicom.dataset import Dataset

from tests.dicoms import dataset, inside, save
from tests.gated import ORIGIN
from vgmedgen.data import adapters, dicom
from vgmedgen.data.identifier_tables import (
    DESCRIPTIONS,
    EARLIER,
    IDENTIFIERS,
    IDENTIFYING,
    PSEUDONYMS,
    TEXTS,
)
from vgmedgen.errors import DataError
from vgmedgen.synthesis.asked import Ask, Drawn
from vgmedgen.synthesis.dicom import as_dicom

NAME = "Zz Doe"  # short enough for every type, and part of no keyword
REMOVED = {"PatientIdentityRemoved": "YES"}
REPEATED = {
    entry[4]: int(mask.replace("x", "0"), 16)
    for mask, entry in RepeatersDictionary.items()
}
VALID = {"CS": "ZZ", "DA": "19700101", "DS": "47.5", "TM": "1200", "UR": "zz:doe"}
WORDS = {"LO", "LT", "SH", "ST", "UC", "UT"}


def tag_of(name: str) -> int:
    tag = tag_for_keyword(name)
    return REPEATED[name] if tag is None else tag


def told_by(names: Iterable[str]) -> Dataset:
    """A data set that says something in each of these attributes."""
    data = Dataset()
    for name in names:
        kind = dictionary_VR(tag_of(name))
        value: Any = VALID.get(kind, NAME)
        if kind == "SQ":
            value = inside(0, CodeValue="1")
        elif kind in {"OB", "OW", "UN"} or "or" in kind:
            kind, value = "OB" if "or" in kind else kind, NAME.encode()
        data.add_new(tag_of(name), kind, value)
    return data


def file_of(path: Path, said: Dataset, **more: Any) -> Path:
    data = dataset(np.zeros((16, 16), np.uint8), "MONOCHROME2", **more)
    data.update(said)
    return save(path, data)


def refused(folder: Path, **more: Any) -> str:
    (folder / "manifest.csv").write_text("image,caption\na.dcm,a lesion\n")
    with pytest.raises(DataError) as caught:
        adapters.read("table", folder, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "")


def test_every_attribute_of_the_tables_is_one_of_the_standard_and_in_one_class() -> (
    None
):
    for name in IDENTIFYING | EARLIER:
        assert dictionary_has_tag(tag_of(name)) or name in REPEATED, name
    classes = (PSEUDONYMS, DESCRIPTIONS, TEXTS, IDENTIFIERS)
    assert (
        Counter(name for names in classes for name in names).most_common(1)[0][1] == 1
    )
    assert {dictionary_VR(tag_of(name)) for name in EARLIER} == {"SQ"}


def test_what_the_standard_calls_a_comment_or_a_reason_is_free_text() -> None:
    called = ("Comment", "Reason", "Narrative", "History", "Diagnos", "Allerg", "Alert")
    found = {
        name
        for name, tag in keyword_dict.items()
        if tag >> 16  # a command is in no file
        and any(word in name for word in called)
        and dictionary_VR(tag) in WORDS
    }
    assert len(found) > 40
    assert found <= TEXTS


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_every_attribute_tells_and_only_some_may_stay(
    tmp_path: Path, syntax: str
) -> None:
    # meta information, and what ends the file, have places of their own
    names = IDENTIFYING - {"PrivateInformation", "DataSetTrailingPadding"}
    plain = file_of(tmp_path / "a.dcm", told_by(names), syntax=syntax)
    removed = file_of(tmp_path / "b.dcm", told_by(names), syntax=syntax, **REMOVED)
    denied = file_of(
        tmp_path / "c.dcm", told_by(names), syntax=syntax, PatientIdentityRemoved="NO"
    )
    assert dicom.identity(plain) == dicom.identity(denied) == sorted(names)
    assert dicom.identity(removed) == sorted(names - DESCRIPTIONS - PSEUDONYMS)


@pytest.mark.parametrize("name", ["ImageComments", "StationName", "GPSLatitude"])
@pytest.mark.parametrize("depth", [0, 3])
def test_what_lies_in_a_sequence_counts_like_what_does_not(
    tmp_path: Path, name: str, depth: int
) -> None:
    said = told_by([name])[tag_of(name)].value
    held = Dataset()
    held.PerformedProtocolCodeSequence = inside(depth, **{name: said})
    assert dicom.identity(file_of(tmp_path / "a.dcm", held)) == [name]
    stays = [] if name in DESCRIPTIONS else [name]
    assert dicom.identity(file_of(tmp_path / "b.dcm", held, **REMOVED)) == stays


@pytest.mark.parametrize("around", [*sorted(EARLIER), ""])
@pytest.mark.parametrize("name", ["PatientID", "PatientName", "StudyDescription"])
def test_a_removed_identity_does_not_stay_in_what_was_said_before(
    tmp_path: Path, around: str, name: str
) -> None:
    held = inside(1, **{name: NAME})
    said = Dataset()
    if around:
        setattr(said, around, held)
    else:
        said.private_block(0x0011, "ACME", create=True).add_new(1, "SQ", held)
    assert dicom.identity(file_of(tmp_path / "a.dcm", said, **REMOVED)) == [name]
    elsewhere = Dataset()
    elsewhere.ReferencedPatientSequence = held
    assert dicom.identity(file_of(tmp_path / "b.dcm", elsewhere, **REMOVED)) == []


def test_a_persons_identification_is_searched_whole(tmp_path: Path) -> None:
    for around in ("OperatorIdentificationSequence", "RequestAttributesSequence"):
        held = inside(
            2,
            PersonIdentificationCodeSequence=inside(0, CodeMeaning=NAME),
            InstitutionName=NAME,
            RequestedProcedureDescription=NAME,
        )
        said = Dataset()
        setattr(said, around, held)
        found = ["InstitutionName", "PersonIdentificationCodeSequence"]
        path = file_of(tmp_path / "a.dcm", said, **REMOVED)
        assert dicom.identity(path) == found
        path = file_of(tmp_path / "a.dcm", said)
        assert dicom.identity(path) == [*found, "RequestedProcedureDescription"]


def test_codes_and_machines_by_model_name_nobody(tmp_path: Path) -> None:
    said = told_by(["Manufacturer", "ManufacturerModelName", "SoftwareVersions"])
    said.ProcedureCodeSequence = inside(0, CodeValue="1", CodeMeaning="Dermoscopy")
    assert dicom.identity(file_of(tmp_path / "a.dcm", said)) == []


def test_descriptions_come_in_where_the_identity_was_removed_and_comments_never_do(
    tmp_path: Path,
) -> None:
    said = told_by(["StudyDescription", "StationName"])
    file_of(tmp_path / "a.dcm", said)
    assert "StationName, StudyDescription;" in refused(tmp_path)
    file_of(tmp_path / "a.dcm", said, **REMOVED)
    assert len(adapters.read("table", tmp_path).records) == 1
    said.ImageComments = NAME
    file_of(tmp_path / "a.dcm", said, **REMOVED)
    assert "by ImageComments;" in refused(tmp_path)
    assert len(adapters.read("table", tmp_path, identified=True).records) == 1


def test_a_refusal_names_the_first_few_and_no_value(tmp_path: Path) -> None:
    names = sorted(TEXTS - set(REPEATED))
    for count, rest in ((6, ""), (7, " and 1 more"), (40, " and 34 more")):
        file_of(tmp_path / "a.dcm", told_by(names[:count]))
        said = refused(tmp_path)
        assert f"by {', '.join(names[:6])}{rest}; de-identify" in said
        assert NAME not in said
        assert len(said) < 600


def test_our_own_images_name_nobody_and_still_do_not_train(tmp_path: Path) -> None:
    drawn = Drawn(Ask(number=0, prompt=NAME, seed=0), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "a.dcm").write_bytes(as_dicom(drawn, ORIGIN))
    assert dicom.identity(tmp_path / "a.dcm") == []
    assert "synthetic image" in refused(tmp_path, identified=True)
