"""Who is whose: the units of a table are told by every row, or by none."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import generate_uid

from vgmedgen.data import adapters
from vgmedgen.data.unitnames import NOBODY
from vgmedgen.errors import DataError

ROWS = ("a.png", "b.png", "c.png", "d.png")


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def scan(path: Path, seed: int, patient: str) -> None:
    """A DICOM image whose header names its patient by a pseudonym."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    told = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    told.SOPClassUID = meta.MediaStorageSOPClassUID
    told.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    told.PatientID, told.PatientIdentityRemoved = patient, "YES"
    told.DeidentificationMethod = "pseudonyms"
    told.Rows = told.Columns = 8
    told.SamplesPerPixel, told.PhotometricInterpretation = 1, "MONOCHROME2"
    told.BitsAllocated = told.BitsStored = 8
    told.HighBit, told.PixelRepresentation = 7, 0
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    told.PixelData = noise.tobytes()
    told.save_as(path, enforce_file_format=True)


def table(folder: Path, units: list[str] | dict[str, list[str]], names=ROWS):
    """A dataset of one image a row; the columns that tell units are given."""
    columns = units if isinstance(units, dict) else {"unit": units}
    folder.mkdir(exist_ok=True)
    lines = [",".join(["image", "caption", *columns])]
    for number, cells in enumerate(zip(*columns.values(), strict=True)):
        if not (folder / names[number]).exists():
            picture(folder / names[number], number)
        lines.append(",".join([names[number], "a lesion", *cells]))
    (folder / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    return adapters.read("table", folder)


def refused(folder: Path, units, names=ROWS) -> str:
    with pytest.raises(DataError) as caught:
        table(folder, units, names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_unit_on_every_row_is_a_patient(tmp_path):
    found = table(tmp_path, ["0012", "0012", "12", "010"])
    assert found.units == ("0012", "010", "12")
    assert found.unit_kind == "patient"


@pytest.mark.parametrize(
    ("units", "line"),
    [
        (["p1", "", "", ""], 3),  # merged cells
        (["", "p1", "p1", "p1"], 2),
        (["p1", "p1", " ", "p2"], 4),
        (["p1", "p1", "p2", "\u00a0"], 5),
    ],
)
@pytest.mark.parametrize("column", ["unit", "patient_id", "lesion_id"])
def test_a_column_of_units_that_is_half_filled_is_refused(
    tmp_path, column, units, line
):
    told = refused(tmp_path, {column: units})
    assert f"line {line}: '{column}' is empty" in told
    assert "merged cells" in told


@pytest.mark.parametrize(
    "word", [*sorted(NOBODY), "NaN", "None", "NULL", "N/A", "Na N"]
)
def test_a_unit_that_says_that_nobody_knows_it_is_refused(tmp_path, word):
    told = refused(tmp_path, ["p1", "p1", word, word])
    assert "line 4" in told
    (tmp_path / "units.csv").write_text(
        "image,unit\na.png,p\nb.png,p\nc.png," + word + "\nd.png,q\n", encoding="utf-8"
    )
    table(tmp_path, ["p1", "p1", "p2", "p3"])
    with pytest.raises(DataError, match=r"units\.csv line 4: the unit is"):
        adapters.read("table", tmp_path, grouping=tmp_path / "units.csv")


@pytest.mark.parametrize("word", ["1.23457E+11", "1,2E+15", "4.7e12", "-1.5E+20"])
def test_a_number_that_a_spreadsheet_shortened_is_no_name(tmp_path, word):
    told = refused(tmp_path, {"patient_id": ["p", "p", f'"{word}"', f'"{word}"']})
    assert "line 4" in told
    assert "shortened" in told
    assert table(tmp_path, ["1E5", "1E5", "12.0", "E+11"]).unit_kind == "patient"


@pytest.mark.parametrize(
    "other",
    [
        "p 1",
        "P1",
        "p1\u200b",
        "\uff50\uff11",
        "p\u00a01",
    ],  # fullwidth letters among them
)
def test_units_that_differ_in_case_or_blanks_alone_are_refused(tmp_path, other):
    told = refused(tmp_path, ["p1", "p2", other, "p2"])
    assert "line 4: the units" in told
    assert "(line 2) differ in case or blanks alone" in told


def test_blanks_around_a_unit_are_no_part_of_it(tmp_path):
    assert table(tmp_path, ["p1 ", " p1", "p2\t", "p2"]).units == ("p1", "p2")


def test_a_unit_in_two_unicode_forms_is_one(tmp_path):
    forms = [unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD")]
    found = table(tmp_path, [*forms, "p", "p"])
    assert found.units == (forms[0], "p")


def test_a_name_of_its_own_for_every_image_tells_no_patient(tmp_path):
    found = table(tmp_path, ["s1", "s2", "s3", "s4"])
    assert found.units == ("s1", "s2", "s3", "s4")
    assert found.unit_kind == "image"
    named = table(tmp_path, {"patient_id": ["s1", "s2", "s3", "s4"]})
    assert named.unit_kind == "patient"  # the hospital's own word


@pytest.mark.parametrize("own", ["d.png", "d"])
def test_one_image_that_is_its_own_unit_makes_the_table_one_of_images(tmp_path, own):
    assert table(tmp_path, ["p1", "p1", "p1", own]).unit_kind == "image"


def test_the_column_says_what_a_unit_is(tmp_path):
    lesions = table(tmp_path, {"lesion_id": ["1", "1", "2", "2"]})
    assert (lesions.units, lesions.unit_kind) == (("1", "2"), "lesion")
    both = {"lesion_id": ["1", "1", "2", "2"], "patient_id": ["p", "p", "p", "q"]}
    found = table(tmp_path, both)
    assert (found.units, found.unit_kind) == (("p", "q"), "patient")
    assert found.records[0].facts == {"lesion_id": "1"}
    empty = {"patient_id": [""] * 4, "lesion_id": ["1", "1", "2", "2"]}
    assert table(tmp_path, empty).unit_kind == "lesion"
    assert table(tmp_path, {"unit": [""] * 4}).unit_kind == "image"
    two = {"unit": ["1", "1", "2", "2"], "patient_id": ["p", "p", "q", "q"]}
    assert "'patient_id' and 'unit'" in refused(tmp_path, two)


NAMES = ("a.dcm", "b.dcm", "c.dcm", "d.dcm")


def scans(folder: Path, patients: list[str]) -> Path:
    folder.mkdir()
    for number, patient in enumerate(patients):
        scan(folder / NAMES[number], number, patient)
    return folder


def test_dicom_headers_that_name_every_patient_tell_patients(tmp_path):
    folder = scans(tmp_path / "x", ["1", "1", "2", "3"])
    found = table(folder, [""] * 4, NAMES)
    assert (len(found.units), found.unit_kind) == (3, "patient")


def test_one_dicom_that_names_a_patient_among_pictures_that_name_none_is_refused(
    tmp_path,
):
    scan(tmp_path / "a.dcm", 0, "1")
    told = refused(tmp_path, [""] * 4, ("a.dcm", "b.png", "c.png", "d.png"))
    assert "line 3: nothing tells whose image this is" in told
    assert "line 2 is a DICOM image that names its patient" in told
    assert "'patient_id'" in told


def test_a_column_filled_for_the_pictures_alone_is_refused_too(tmp_path):
    scan(tmp_path / "a.dcm", 0, "1")
    names = ("a.dcm", "b.png", "c.png", "d.png")
    assert "line 2: 'unit' is empty" in refused(tmp_path, ["", "p", "p", "q"], names)
    found = table(tmp_path, ["p", "p", "q", "q"], names)
    assert found.unit_kind == "patient"


def test_a_dicom_without_a_patient_is_a_row_that_tells_none(tmp_path):
    folder = scans(tmp_path / "x", ["1", "1", "", "2"])
    assert "line 4: nothing tells" in refused(folder, [""] * 4, NAMES)


def test_a_table_that_divides_a_dicom_patient_knows_no_patients(tmp_path):
    folder = scans(tmp_path / "x", ["1", "1", "2", "2"])
    assert table(folder, ["u", "v", "w", "w"], NAMES).unit_kind == "image"
    assert table(folder, ["u", "u", "w", "w"], NAMES).unit_kind == "patient"
