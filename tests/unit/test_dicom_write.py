"""Synthetic images as DICOM, looked at by others: gdcm, dcmtk and dciodvfy."""

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from vgmedgen.data.dicom import header
from vgmedgen.errors import DataError
from vgmedgen.synthesis.asked import Ask, Drawn, Origin
from vgmedgen.synthesis.dicom import SUFFIX, as_dicom

MODALITIES = ("dermoscopy", "endoscopy", "ultrasound", "")
ASK = Ask(number=3, prompt="a small pale lesion, upper left", seed=4, label="mel")
ORIGIN = Origin(
    release="ab" * 32,
    run="demo",
    base="cd" * 32,
    site="hospital-a",
    modality="dermoscopy",
    steps=25,
    guidance=2.0,
    cleared=True,
)
LONG = "größer \\ als 病变 \n\t\0 \ud800" * 300


def pixels(*, grey: bool = False, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (33, 41, 3), dtype=np.uint8)  # odd on purpose
    return np.repeat(values[..., :1], 3, axis=2) if grey else values


def mask() -> np.ndarray:
    return (np.random.default_rng(1).random((33, 41)) > 0.5).astype(np.uint8)


def drawn(ask: Ask = ASK, *, grey: bool = False, masked: bool = False) -> Drawn:
    return Drawn(ask, pixels(grey=grey), mask() if masked else None)


def write(folder: Path, image: Drawn, origin: Origin) -> Path:
    path = folder / f"image{SUFFIX}"
    path.write_bytes(as_dicom(image, origin))
    return path


def parsed(image: Drawn, origin: Origin = ORIGIN) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(as_dicom(image, origin)))


def run(*command: str | Path) -> str:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        check=False,
        env={"DCMDICTPATH": "/usr/share/libdcmtk17/dicom.dic", "PATH": "/usr/bin"},
    )
    return (done.stdout + done.stderr).decode(errors="replace")


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("prompt", [ASK.prompt, LONG], ids=["usual", "odd"])
@pytest.mark.parametrize(
    ("grey", "masked", "cleared"),
    [(False, False, True), (True, True, False), (False, True, True)],
)
def test_a_validator_by_others_finds_no_error(
    tmp_path: Path, modality: str, prompt: str, grey: bool, masked: bool, cleared: bool
) -> None:
    origin = replace(ORIGIN, modality=modality, cleared=cleared)
    image = drawn(replace(ASK, prompt=prompt), grey=grey, masked=masked)
    told = run("dciodvfy", "-new", write(tmp_path, image, origin))
    assert "Image\n" in told  # it recognised the object
    assert "Error" not in told


def test_the_validator_would_have_found_an_error(tmp_path: Path) -> None:
    data = parsed(drawn())
    del data.Rows
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert "Error" in run("dciodvfy", "-new", tmp_path / "a.dcm")


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("grey", [False, True])
def test_gdcm_reads_the_pixels_and_the_mask(
    tmp_path: Path, modality: str, grey: bool
) -> None:
    gdcm = pytest.importorskip("gdcm")
    image = drawn(grey=grey, masked=True)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(write(tmp_path, image, replace(ORIGIN, modality=modality))))
    assert reader.Read()
    read = reader.GetImage()
    raw = read.GetBuffer().encode("utf-8", "surrogateescape")
    planes = 1 if grey and modality == "ultrasound" else 3
    found = np.frombuffer(raw[: 33 * 41 * planes], np.uint8).reshape(33, 41, planes)
    assert np.array_equal(np.broadcast_to(found, (33, 41, 3)), image.pixels)
    assert read.GetNumberOfOverlays() == 1
    overlay = read.GetOverlay(0)
    assert (overlay.GetRows(), overlay.GetColumns()) == (33, 41)
    assert overlay.GetDescription().strip() == "lesion mask"


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("grey", [False, True])
def test_dcmtk_reads_the_pixels(tmp_path: Path, modality: str, grey: bool) -> None:
    image = drawn(grey=grey)
    path = write(tmp_path, image, replace(ORIGIN, modality=modality))
    out = tmp_path / "a.png"
    told = run("dcm2pnm", "--write-png", path, out)
    assert out.is_file(), told
    found = np.asarray(Image.open(out).convert("RGB"))
    assert np.array_equal(found, image.pixels)


def test_dcmtk_draws_the_mask_over_the_image(tmp_path: Path) -> None:
    image = Drawn(ASK, np.full((33, 41, 3), 9, np.uint8), mask())
    path = write(tmp_path, image, replace(ORIGIN, modality="ultrasound"))
    out = tmp_path / "a.png"
    run("dcm2pnm", "--write-png", "--display-overlay", "1", path, out)
    found = np.asarray(Image.open(out).convert("L"))
    assert np.array_equal(found != 9, mask() == 1)


def test_dcmdump_reads_every_word_of_the_header(tmp_path: Path) -> None:
    told = run("dcmdump", write(tmp_path, drawn(masked=True), ORIGIN))
    for word in ("SYNTHETIC^NO PATIENT", ASK.prompt, "ab" * 32, "[lesion mask]"):
        assert word in told
    assert "E:" not in told
    assert "W:" not in told


def test_equal_images_have_equal_bytes_and_no_others() -> None:
    first = as_dicom(drawn(masked=True), ORIGIN)
    assert as_dicom(drawn(masked=True), ORIGIN) == first
    others = [
        (drawn(), ORIGIN),
        (replace(drawn(masked=True), pixels=pixels(seed=9)), ORIGIN),
        (drawn(replace(ASK, seed=5), masked=True), ORIGIN),
        (drawn(replace(ASK, number=4), masked=True), ORIGIN),
        (drawn(replace(ASK, style="dark"), masked=True), ORIGIN),
        (drawn(masked=True), replace(ORIGIN, steps=24)),
        (drawn(masked=True), replace(ORIGIN, cleared=False)),
        (drawn(masked=True), replace(ORIGIN, site="hospital-b")),
    ]
    uids = {parsed(*other).SOPInstanceUID for other in others}
    uids.add(parsed(drawn(masked=True)).SOPInstanceUID)
    assert len(uids) == len(others) + 1
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids)


def test_images_of_one_release_and_site_are_one_study_of_one_patient() -> None:
    here = [parsed(drawn(replace(ASK, number=k, seed=k))) for k in range(3)]
    there = parsed(drawn(), replace(ORIGIN, site="hospital-b"))
    newer = parsed(drawn(), replace(ORIGIN, release="ef" * 32))
    for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"):
        same = {getattr(data, name) for data in here}
        assert len(same) == 1
        assert len(same | {getattr(there, name), getattr(newer, name)}) == 3
    assert [data.InstanceNumber for data in here] == [1, 2, 3]


def test_a_header_says_that_there_is_no_patient() -> None:
    data = parsed(drawn())
    assert data.PatientName == "SYNTHETIC^NO PATIENT"
    assert data.PatientID.startswith("SYN-")
    assert data.PatientIdentityRemoved == "YES"
    assert data.PatientBirthDate == data.PatientSex == data.StudyDate == ""
    assert data.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert data.BurnedInAnnotation == "NO"
    assert "no patient" in data.DerivationDescription


def test_the_mark_not_cleared_is_there_exactly_where_it_must_be() -> None:
    cleared = str(parsed(drawn()))
    assert "NOT CLEARED" not in cleared
    data = parsed(drawn(), replace(ORIGIN, cleared=False))
    assert data.ImageComments.startswith("NOT CLEARED")
    assert data.SeriesDescription == "NOT CLEARED"


@pytest.mark.parametrize("prompt", [ASK.prompt, "größer \\ als 病变 " * 300])
def test_the_private_block_holds_the_whole_provenance(prompt: str) -> None:
    ask = replace(ASK, prompt=prompt, anatomy="oval", style="dark", share=0.25)
    data = parsed(drawn(ask))
    block = data.private_block(0x0009, "VGMEDGEN")
    told = [block[place].value for place in (1, 2, 3, 4, 5, 7, 8)]
    assert told == [
        *("ab" * 32, "demo", "cd" * 32, "hospital-a", "dermoscopy", "oval", "dark")
    ]
    assert block[6].value == prompt.rstrip()
    numbers = [block[place].value for place in (10, 12, 13, 14, 15, 16)]
    assert numbers == ["0.25", "3", "4", "25", "2", "yes"]
    equipment = data.ContributingEquipmentSequence[0]
    assert "seed: 4" in equipment.ContributionDescription or prompt != ASK.prompt
    assert len(equipment.ContributionDescription) <= 1024
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


def test_our_own_files_name_nobody_and_are_known_as_synthetic(tmp_path: Path) -> None:
    told = header(write(tmp_path, drawn(masked=True), ORIGIN))
    assert told.synthetic
    assert told.identity == ()


@pytest.mark.parametrize(
    ("image", "modality", "word"),
    [
        (Drawn(ASK, pixels()[..., 0]), "", "8 bit pixels"),
        (Drawn(ASK, pixels().astype(np.uint16)), "", "8 bit pixels"),
        (Drawn(ASK, pixels()[:0]), "", "1 to 65535"),
        (Drawn(ASK, pixels(), mask()[1:]), "", "sizes must be equal"),
        (Drawn(ASK, pixels()), "radiography", "one of dermoscopy"),
    ],
    ids=["grey", "16 bit", "empty", "mask", "modality"],
)
def test_what_is_no_image_is_refused(image: Drawn, modality: str, word: str) -> None:
    with pytest.raises(DataError) as caught:
        as_dicom(image, replace(ORIGIN, modality=modality))
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
