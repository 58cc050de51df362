"""A csv as spreadsheets write it is read; columns that are nearly right are refused."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vgmedgen.audit.copies import read_synthetic
from vgmedgen.data import adapters
from vgmedgen.data.adapters.folders import Names
from vgmedgen.data.tables import read_rows
from vgmedgen.errors import ConfigError, DataError
from vgmedgen.synthesis.job import TABLE
from vgmedgen.synthesis.prompts import read_prompts

TEXT = 'image,caption,unit\na.png,"a lesion, größer",Müller\nb.png,"say ""it""",ß\n'
ROWS = [
    {"image": "a.png", "caption": "a lesion, größer", "unit": "Müller"},
    {"image": "b.png", "caption": 'say "it"', "unit": "ß"},
]
COLUMNS = ("image", "caption")


def saved(tmp_path: Path, text: str, code: str = "utf-8") -> Path:
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode(code))
    return path


def separated(delimiter: str) -> str:
    if delimiter == ",":
        return TEXT
    head, _, second = TEXT.splitlines()
    return "\n".join(
        [
            head.replace(",", delimiter),
            f'a.png{delimiter}"a lesion, größer"{delimiter}Müller',
            second.replace(",", delimiter),
        ]
    )


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_csv_is_read_as_spreadsheets_write_it(tmp_path, code, delimiter, ends):
    text = separated(delimiter).replace("\n", ends)
    path = saved(tmp_path, text, code)
    assert [row for _, row in read_rows(path, COLUMNS, ("unit",))] == ROWS


@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be"])
def test_utf_16_with_its_mark_is_read_and_without_it_refused(tmp_path, code):
    path = saved(tmp_path, "\ufeff" + TEXT, code)
    assert [row for _, row in read_rows(path, COLUMNS)] == ROWS
    path = saved(tmp_path, TEXT.replace("ö", "o").replace("ü", "u"), code)
    with pytest.raises(DataError, match=r"x\.csv .* save it again as 'CSV UTF-8'"):
        read_rows(path, COLUMNS)


@pytest.mark.parametrize("code", ["cp1252", "latin-1", "mac-roman", "cp850"])
def test_an_encoding_that_does_not_say_itself_is_refused_and_not_guessed(
    tmp_path, code
):
    path = saved(tmp_path, TEXT, code)
    with pytest.raises(DataError, match=r"line 2 is coded in another way; .*UTF-8"):
        read_rows(path, COLUMNS)
    with pytest.raises(DataError, match="cannot be read: "):
        read_rows(tmp_path, COLUMNS)


def test_a_first_line_that_names_the_separator_is_followed(tmp_path):
    path = saved(tmp_path, "sep=;\r\n" + separated(";"))
    found = read_rows(path, COLUMNS)
    assert [row for _, row in found] == ROWS
    assert [line for line, _ in found] == [3, 4]


def test_masks_in_one_cell_stay_apart_from_the_separator(tmp_path):
    text = 'image;mask;caption\na.png;"m.png;n.png";x\n'
    assert read_rows(saved(tmp_path, text), COLUMNS, ("mask",))[0][1]["mask"] == (
        "m.png;n.png"
    )
    with pytest.raises(DataError, match="line 2 has more values"):
        read_rows(saved(tmp_path, text.replace('"', "")), COLUMNS, ("mask",))


def test_rows_and_columns_that_a_spreadsheet_left_empty_are_none(tmp_path):
    text = ",image,caption,\n0,a.png,x,\n1,b.png,y,\n,,,\n , ,,\n"
    found = read_rows(saved(tmp_path, text), COLUMNS)
    assert found == [
        (2, {"image": "a.png", "caption": "x"}),
        (3, {"image": "b.png", "caption": "y"}),
    ]


@pytest.mark.parametrize("row", ['a.png,"x\nb.png,y\n', 'a.png,"x"y\n'])
def test_an_open_or_stray_quotation_mark_swallows_no_rows(tmp_path, row):
    with pytest.raises(DataError, match="quotation mark"):
        read_rows(saved(tmp_path, f"image,caption\n{row}"), COLUMNS)


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("a", "m")):
        noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    return tmp_path


def refused(folder: Path, header: str, row: str, **given: Path) -> str:
    (folder / "manifest.csv").write_text(f"{header}\n{row}\n")
    with pytest.raises(DataError) as caught:
        adapters.read("table", folder, **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        *(
            ("Mask", "mask"),
            ("masks", "mask"),
            ("MASKS", "mask"),
            ("mask_path", "mask"),
        ),
        *(("mask file", "mask"), ("segmentation", "mask"), ("Masks ", "mask")),
        *(("maks", "mask"), ("uint", "unit"), ("patiend_id", "patient_id")),
        *(("Unit", "unit"), ("units", "unit"), ("UNIT", "unit"), ("case_id", "unit")),
        *(("patient", "patient_id"), ("Patient", "patient_id"), ("Case", "unit")),
        *(("PatientID", "patient_id"), ("patient-id", "patient_id")),
        *(("Patient Id", "patient_id"), ("patients", "patient_id")),
        *(("patient_ids", "patient_id"), ("subject", "patient_id")),
        *(("lesion", "lesion_id"), ("LesionID", "lesion_id"), ("Label", "label")),
        *(("labels", "label"), ("ID", "id"), ("ids", "id"), ("lable", "label")),
    ],
)
def test_a_column_that_is_nearly_one_is_refused_with_the_right_name(
    folder, column, meant
):
    told = refused(folder, f"image,caption,{column}", "a.png,a lesion,m.png")
    assert f"a column '{column.strip()}', which is not read" in told
    assert f"rename it to '{meant}'" in told


@pytest.mark.parametrize(
    ("header", "meant"),
    [
        ("Image,caption", "rename 'Image' to 'image'"),
        ("images,caption", "rename 'images' to 'image'"),
        ("file_name,caption", "rename 'file_name' to 'image'"),
        ("image,Caption", "rename 'Caption' to 'caption'"),
        ("image,text", "rename 'text' to 'caption'"),
        ("image,captoin", "rename 'captoin' to 'caption'"),
    ],
)
def test_a_needed_column_under_another_name_is_named(folder, header, meant):
    assert meant in refused(folder, header, "a.png,a lesion")


def test_a_column_beside_its_near_double_is_refused(folder):
    told = refused(folder, "image,caption,mask,Mask", "a.png,x,m.png,m.png")
    assert "both 'mask' and 'Mask'" in told
    told = refused(folder, "image,caption,mask,mask", "a.png,x,m.png,m.png")
    assert "two columns 'mask'" in told


def test_other_columns_stay_facts(folder):
    facts = (
        "age",
        "sex",
        "dx",
        "site",
        "image_id",
        "class",
        "scanner",
        "masked",
        "idx",
    )
    header = ",".join(["image", "caption", "patient_id", *facts])
    (folder / "manifest.csv").write_text(f"{header}\na.png,x,p,{','.join(facts)}\n")
    (record,) = adapters.read("table", folder).records
    assert record.facts == dict(zip(facts, facts, strict=True))


@pytest.mark.parametrize(
    ("name", "header", "told"),
    [
        ("grouping", "image,patient_id", "rename 'patient_id' to 'unit'"),
        ("grouping", "image,Unit", "rename 'Unit' to 'unit'"),
        ("grouping", "image,unit,units", "both 'unit' and 'units'"),
        ("captions", "image,text", "rename 'text' to 'caption'"),
        ("captions", "Image,caption", "rename 'Image' to 'image'"),
    ],
)
def test_groupings_and_captions_are_held_to_the_same(folder, name, header, told):
    (folder / "manifest.csv").write_text("image,caption\na.png,x\n")
    (folder / "said.csv").write_text(f"{header}\na.png,x,y\n"[: -3 + header.count(",")])
    with pytest.raises(DataError, match=told):
        adapters.read("table", folder, **{name: folder / "said.csv"})


@pytest.mark.parametrize("column", ["Seed", "seeds", "labels", "Anatomy"])
def test_prompts_are_held_to_the_same(tmp_path, column):
    path = saved(tmp_path, f"prompt,{column}\na lesion,7\n")
    with pytest.raises(ConfigError, match=f"a column '{column}', which is not read"):
        read_prompts(path)


def test_prompts_are_read_as_spreadsheets_write_them(tmp_path):
    path = saved(tmp_path, "prompt;seed\nein großer Herd;7\n", "utf-16")
    (wish,) = read_prompts(path)
    assert (wish.prompt, wish.seed) == ("ein großer Herd", 7)
    lines = tmp_path / "x.txt"
    lines.write_bytes("ein großer Herd\n".encode("utf-16"))
    assert read_prompts(lines)[0].prompt == "ein großer Herd"
    lines.write_bytes("ein großer Herd\n".encode("cp1252"))
    with pytest.raises(ConfigError, match="coded in another way"):
        read_prompts(lines)


def test_an_index_of_drawn_images_is_read_by_the_same_reader(tmp_path):
    (tmp_path / TABLE).write_text("image\n")
    with pytest.raises(ConfigError, match="lists no image"):
        read_synthetic(tmp_path, 16)
    (tmp_path / TABLE).write_bytes("image\nä.png\n".encode("cp1252"))
    with pytest.raises(DataError, match="coded in another way"):
        read_synthetic(tmp_path, 16)


COMPOSED = unicodedata.normalize("NFC", "Läsion é.png")
APART = unicodedata.normalize("NFD", "Läsion é.png")


@pytest.mark.parametrize(("on_disk", "typed"), [(COMPOSED, APART), (APART, COMPOSED)])
def test_a_name_is_matched_whatever_form_its_letters_have(folder, on_disk, typed):
    below = folder / on_disk.removesuffix(".png")
    below.mkdir()
    for seed, name in enumerate((on_disk, f"m {on_disk}")):
        noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(below / name)
    place = typed.removesuffix(".png")
    (folder / "manifest.csv").write_text(
        f"image,mask,caption\n{place}/{typed},{place}/m {typed},x\n", encoding="utf-8"
    )
    (folder / "captions.csv").write_text(
        f"image,caption\n{typed},said\n", encoding="utf-8"
    )
    (folder / "units.csv").write_text(
        f"image,unit\n{typed},{typed}\n", encoding="utf-8"
    )
    (record,) = adapters.read(
        "table",
        folder,
        captions=folder / "captions.csv",
        grouping=folder / "units.csv",
    ).records
    assert record.image == below / on_disk
    assert record.masks == (below / f"m {on_disk}",)
    assert (record.caption, record.unit) == ("said", COMPOSED)
    assert record.id == f"{COMPOSED.removesuffix('.png')}/{COMPOSED}"


def test_a_folder_and_its_csvs_are_there_whatever_form_their_names_have(folder):
    for on_disk, typed in ((COMPOSED, APART), (APART, COMPOSED)):
        place = folder / f"{on_disk} data"
        (place / "images").mkdir(parents=True)
        (place / "masks").mkdir()
        for below in ("images/a.png", "masks/a.png"):
            (place / below).write_bytes((folder / "a.png").read_bytes())
        (folder / f"{on_disk}.csv").write_text("image,caption\na,said\n")
        (folder / f"u {on_disk}.csv").write_text("image,unit\na,p\n")
        (record,) = adapters.read(
            "kvasir-seg",
            folder / f"{typed} data",
            captions=folder / f"{typed}.csv",
            grouping=folder / f"u {typed}.csv",
        ).records
        assert (record.caption, record.unit) == ("said", "p")
        shutil.rmtree(place)
        for path in folder.glob("*.csv"):
            path.unlink()


@pytest.mark.parametrize("dataset", ["busi", "ham10000", "kvasir-seg"])
def test_a_file_in_place_of_a_folder_is_refused_in_one_line(folder, dataset):
    with pytest.raises(DataError, match=dataset):
        adapters.read(dataset, folder / "a.png")


def test_two_names_that_look_equal_are_refused(folder):
    for name in (COMPOSED, APART):
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    if len(list(folder.glob("L*"))) < 2:
        pytest.skip("this file system keeps one form")
    for name in (COMPOSED, APART):
        told = refused(folder, "image,caption", f"{name},x")
        assert "line 2: image" in told
        assert "two files" in told
    told = refused(folder, "image,mask,caption", f"a.png,{APART},x")
    assert "line 2: mask" in told
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    for name in (COMPOSED, APART):
        (folder / "images" / name).write_bytes((folder / "a.png").read_bytes())
    with pytest.raises(DataError, match="names look equal"):
        adapters.read("kvasir-seg", folder)


def test_a_mask_is_paired_with_an_image_of_the_other_form(folder):
    for place, name in (("images", APART), ("masks", COMPOSED)):
        (folder / place).mkdir()
        (folder / place / name).write_bytes((folder / "a.png").read_bytes())
    (record,) = adapters.read("kvasir-seg", folder).records
    assert (record.image.name, record.masks[0].name) == (APART, COMPOSED)
    assert record.unit == COMPOSED.removesuffix(".png")
    (folder / "benign").mkdir()
    (folder / "benign" / APART).write_bytes((folder / "a.png").read_bytes())
    mask = COMPOSED.replace(".png", "_mask.png")
    (folder / "benign" / mask).write_bytes((folder / "m.png").read_bytes())
    assert len(adapters.read("busi", folder).records[0].masks) == 1


def test_paths_may_lead_up_and_may_be_whole(folder):
    names = Names()
    below = folder / "below"
    below.mkdir()
    assert names.find(below, "../a.png") == [below / ".." / "a.png"]
    assert names.find(below, str(folder / "a.png")) == [folder / "a.png"]
    assert names.find(below, "nowhere/a.png") == []
    assert names.find(folder, "below") == []


def test_one_caption_for_two_images_of_one_name_is_refused(folder):
    for place in ("one", "two"):
        (folder / place).mkdir()
        (folder / place / "1.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "captions.csv").write_text("image,caption\n1.png,x\n")
    told = refused(
        folder,
        "image,caption",
        "one/1.png,x\ntwo/1.png,y",
        captions=folder / "captions.csv",
    )
    assert "line 2: the name fits" in told
