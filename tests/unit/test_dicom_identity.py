"""Whom a DICOM file still names, and what a site does with one that does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.dicoms import dataset, inside, save
from tests.gated import ORIGIN
from vgmedgen.cli import app
from vgmedgen.data import adapters, dicom, images
from vgmedgen.errors import DataError
from vgmedgen.synthesis.asked import Ask, Drawn
from vgmedgen.synthesis.dicom import as_dicom

DEIDENTIFIED = {"PatientIdentityRemoved": "YES"}


def picture(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)


def named(path: Path, seed: int = 0, **more: Any) -> Path:
    return save(path, dataset(picture(seed), "RGB", **more))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientName", "Doe^Jane"),
        ("PatientID", "4711"),
        ("PatientBirthDate", "19700101"),
        ("PatientAddress", "1 Main Street"),
        ("PatientTelephoneNumbers", "555"),
        ("OtherPatientIDs", "4712"),
        ("AccessionNumber", "A1"),
        ("InstitutionName", "General Hospital"),
        ("ReferringPhysicianName", "House^Gregory"),
        ("OperatorsName", "Roe^Ann"),
        ("BurnedInAnnotation", "YES"),
        ("RecognizableVisualFeatures", "YES"),
    ],
)
def test_what_identifies_is_told_by_its_name_and_never_by_its_value(
    tmp_path: Path, name: str, value: str
) -> None:
    path = named(tmp_path / "a.dcm", **{name: value})
    assert dicom.identity(path) == [name]
    (tmp_path / "manifest.csv").write_text("image,caption\na.dcm,a lesion\n")
    with pytest.raises(DataError) as caught:
        adapters.read("table", tmp_path)
    told = str(caught.value)
    assert name in told
    assert "policy.identified_dicom" in told
    assert value not in told.replace(name, "") or value == "YES"
    assert "\n" not in told


def test_a_clean_header_names_nobody(tmp_path: Path) -> None:
    path = named(
        tmp_path / "a.dcm",
        PatientName="",
        PatientBirthDate="",
        PatientSex="F",
        StudyDate="20200101",
        StudyInstanceUID="2.25.8",
        BurnedInAnnotation="NO",
        StudyDescription="",
        ImageComments=" ",
    )
    assert dicom.identity(path) == []


def test_a_pseudonym_is_one_only_where_the_file_says_so(tmp_path: Path) -> None:
    told = {"PatientName": "SUBJECT 1", "PatientID": "S1"}
    plain = named(tmp_path / "a.dcm", **told)
    removed = named(tmp_path / "b.dcm", **told, **DEIDENTIFIED)
    denied = named(tmp_path / "c.dcm", **told, PatientIdentityRemoved="NO")
    more = named(tmp_path / "d.dcm", **told, **DEIDENTIFIED, PatientBirthDate="1970")
    assert dicom.identity(plain) == dicom.identity(denied) == sorted(told)
    assert dicom.identity(removed) == []
    assert dicom.identity(more) == ["PatientBirthDate"]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
@pytest.mark.parametrize("depth", [0, 3])
def test_sequences_are_searched(tmp_path: Path, depth: int, syntax: str) -> None:
    held = inside(depth, PatientAddress="1 Main Street", PatientMotherBirthName="Roe")
    path = named(tmp_path / "a.dcm", syntax=syntax, OriginalAttributesSequence=held)
    assert dicom.identity(path) == ["PatientAddress", "PatientMotherBirthName"]


def test_private_elements_are_searched(tmp_path: Path) -> None:
    data = dataset(picture(), "RGB")
    block = data.private_block(0x0029, "ACME", create=True)
    block.add_new(1, "PN", "Doe^Jane")
    block.add_new(2, "SQ", inside(1, PatientID="4711"))
    block.add_new(3, "LO", "a setting that may hold a name")
    block.add_new(4, "US", 7)
    block.add_new(5, "UN", b"\1\2\3\4")
    block.add_new(6, "UN", b"\1\2Doe Jane\3\4")
    block.add_new(7, "LT", " ")
    found = dicom.identity(save(tmp_path / "a.dcm", data))
    places = ("1001", "1003", "1006")
    assert found == ["PatientID", *(f"private (0029,{place})" for place in places)]


def test_a_value_that_is_no_valid_one_hides_nothing(tmp_path: Path) -> None:
    data = dataset(picture(), "RGB", PatientName="Doe^Jane")
    data.add_new(0x00100030, "LO", "some day in spring")  # a birth date is a date
    data.add_new(0x00200013, "LO", "not a number")  # an instance number is one
    found = dicom.identity(save(tmp_path / "a.dcm", data))
    assert found == ["PatientBirthDate", "PatientName"]


def table(folder: Path, suffix: str, **more: Any) -> Path:
    """Three images of two patients, a mask each; the same as PNG and as DICOM."""
    folder.mkdir()
    rows = ["image,mask,caption"]
    for number in range(3):
        mask = (picture(number + 9)[..., 0] > 99).astype(np.uint8)
        image, drawn = (folder / f"{word}{number}{suffix}" for word in "im")
        if suffix == ".png":
            Image.fromarray(picture(number)).save(image)
            Image.fromarray(mask * 255).save(drawn)
        else:
            named(image, number, PatientID=f"P{number // 2}", **more)
            save(drawn, dataset(mask, "MONOCHROME2"))
        rows.append(f"{image.name},{drawn.name},lesion {number}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder


def test_a_table_of_dicom_reads_like_the_same_table_of_png(tmp_path: Path) -> None:
    plain = adapters.read("table", table(tmp_path / "png", ".png"))
    told = adapters.read("table", table(tmp_path / "dcm", ".dcm", **DEIDENTIFIED))
    assert len(plain.records) == len(told.records) == 3
    for one, other in zip(plain.records, told.records, strict=True):
        assert one.caption == other.caption
        expected, found = images.load(one, 16), images.load(other, 16)
        assert torch.equal(expected[0], found[0])
        assert torch.equal(expected[1], found[1])
        assert 0 < int(found[1].sum()) < 256


def test_the_patient_is_the_unit_under_another_name(tmp_path: Path) -> None:
    folder = table(tmp_path / "dcm", ".dcm", **DEIDENTIFIED)
    found = adapters.read("table", folder)
    units = [record.unit for record in found.records]
    assert units[0] == units[1] != units[2]
    assert found.unit_kind == "patient"
    assert not {"P0", "P1"} & set(units)
    text = (folder / "manifest.csv").read_text().splitlines()
    text = [f"{line},{unit}" for line, unit in zip(text, ("unit", *"abb"), strict=True)]
    (folder / "manifest.csv").write_text("\n".join(text))
    told = adapters.read("table", folder)
    assert [record.unit for record in told.records] == list("abb")


def test_masks_are_checked_too(tmp_path: Path) -> None:
    folder = table(tmp_path / "dcm", ".dcm", **DEIDENTIFIED)
    mask = dataset(picture()[..., 0], "MONOCHROME2", PatientName="Doe^Jane")
    save(folder / "m1.dcm", mask)
    with pytest.raises(DataError, match=r"m1\.dcm still identifies somebody"):
        adapters.read("table", folder)


@pytest.mark.parametrize("adapter", ["busi", "kvasir-seg"])
def test_no_adapter_lets_a_name_in_under_another_suffix(
    tmp_path: Path, adapter: str
) -> None:
    names = {
        "busi": ("benign/benign (1).png", "benign/benign (1)_mask.png"),
        "kvasir-seg": ("images/a.jpg", "masks/a.jpg"),
    }[adapter]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture()).save(tmp_path / name)
    assert len(adapters.read(adapter, tmp_path).records) == 1
    named(tmp_path / names[0], PatientName="Doe^Jane")
    with pytest.raises(DataError, match="still identifies somebody"):
        adapters.read(adapter, tmp_path)


def test_a_changed_file_is_looked_at_again(tmp_path: Path) -> None:
    path = named(tmp_path / "a.dcm")
    assert dicom.identity(path) == []
    named(path, PatientName="Doe^Jane")
    assert dicom.identity(path) == ["PatientName"]


@pytest.mark.parametrize("identified", [False, True])
def test_synthetic_images_never_train(tmp_path: Path, identified: bool) -> None:
    (tmp_path / "manifest.csv").write_text("image,caption\na.dcm,a lesion\n")
    ours = as_dicom(Drawn(Ask(number=0, prompt="a", seed=0), picture()), ORIGIN)
    (tmp_path / "a.dcm").write_bytes(ours)
    with pytest.raises(DataError, match="synthetic image"):
        adapters.read("table", tmp_path, identified=identified)
    named(tmp_path / "a.dcm", SyntheticData="YES")  # by somebody else
    with pytest.raises(DataError, match="synthetic image"):
        adapters.read("table", tmp_path, identified=identified)
    named(tmp_path / "a.dcm", SyntheticData="NO")
    assert len(adapters.read("table", tmp_path).records) == 1


def test_the_command_says_what_it_found_and_can_be_told_to_go_on(
    tmp_path: Path,
) -> None:
    folder = table(tmp_path / "dcm", ".dcm")
    words = ["data", "check", "table", str(folder)]
    with pytest.raises(DataError, match="PatientID"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    told = CliRunner().invoke(app, [*words, "--identified"], catch_exceptions=False)
    assert told.exit_code == 0
    assert "3 images, 2 units" in told.output


@pytest.mark.parametrize("let", [False, True])
def test_a_site_lets_names_in_only_where_its_policy_does(
    hospital: Any, tmp_path: Path, let: bool
) -> None:
    import yaml

    from vgmedgen.site.folder import Site

    folder = table(tmp_path / "dcm", ".dcm")
    path = hospital.folder / "site.yaml"
    config = yaml.safe_load(path.read_text())
    config["sources"] = [{"dataset": "table", "root": str(folder)}]
    config["heldout_units"] = None
    config.setdefault("policy", {})["identified_dicom"] = let
    path.write_text(yaml.safe_dump(config))
    site = Site(hospital.folder)
    if let:
        assert len(site.samples.latents) == 3
        return
    with pytest.raises(DataError, match="still identifies somebody"):
        _ = site.datasets


def test_a_site_prepares_dicom_like_png(bundle: Any, tmp_path: Path) -> None:
    from vgmedgen.training.samples import prepare

    found = [
        prepare(adapters.read("table", folder), bundle, tmp_path / "cache")
        for folder in (
            table(tmp_path / "png", ".png"),
            table(tmp_path / "dcm", ".dcm", **DEIDENTIFIED),
        )
    ]
    assert found[0].latents.abs().sum() > 0
    assert torch.equal(found[0].latents, found[1].latents)
    assert torch.equal(found[0].embeddings, found[1].embeddings)
