"""What a person reads when data cannot be used: one line that names the place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vgmedgen.data import adapters, images, prompts
from vgmedgen.data.records import Dataset, Record
from vgmedgen.errors import DataError


def paint(path: Path, width: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (12, width, 3), dtype=np.uint8)).save(path)


def ham10000(folder: Path) -> None:
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for name in ("ISIC_1", "ISIC_2"):
        paint(folder / f"HAM10000_images_part_1/{name}.jpg")
        paint(folder / f"HAM10000_segmentations/{name}_segmentation.png")
        rows.append(f"HAM_1,{name},nv,histo,40.0,male,back")
    (folder / "HAM10000_metadata.csv").write_text("\n".join(rows))


def busi(folder: Path) -> None:
    paint(folder / "benign/benign (1).png")
    paint(folder / "benign/benign (1)_mask.png")


def kvasir(folder: Path) -> None:
    paint(folder / "images/a.jpg")
    paint(folder / "masks/a.jpg")


def table(folder: Path, text: str = "image,caption\na.png,a lesion\n") -> None:
    paint(folder / "a.png")
    (folder / "manifest.csv").write_text(text)


MAKERS = {"ham10000": ham10000, "busi": busi, "kvasir-seg": kvasir, "table": table}


def refused(name: str, folder: Path, captions: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        adapters.read(name, folder, captions=captions)
    message = str(caught.value)
    assert "\n" not in message
    return message


def move(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: (folder / old).rename(folder / new) and None


def write(name: str, text: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        (folder / name).write_text(text)

    return act


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        path = folder / name
        path.write_text(path.read_text().replace(old, new))

    return act


META = "HAM10000_metadata.csv"
SEGMENTS = "HAM10000_segmentations"


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        (
            "ham10000",
            move("HAM10000_images_part_1", "x"),
            ["no folder HAM10000_images"],
        ),
        ("ham10000", move(SEGMENTS, "x"), ["no mask folder", "segmentations"]),
        ("ham10000", move(META, "x"), ["no HAM10000_metadata.csv"]),
        (
            "ham10000",
            move(f"{SEGMENTS}/ISIC_2_segmentation.png", "x"),
            ["1 images have no mask", "ISIC_2.jpg"],
        ),
        ("ham10000", edit(META, "ISIC_2", "ISIC_3"), ["no row", "ISIC_2.jpg"]),
        (
            "ham10000",
            edit(META, "ISIC_2", "ISIC_1"),
            ["line 3", "second row", "ISIC_1"],
        ),
        (
            "ham10000",
            edit(META, "lesion_id", "lesion"),
            ["no column 'lesion_id'", META, "rename 'lesion' to 'lesion_id'"],
        ),
        ("ham10000", edit(META, "HAM_1,ISIC_2", ",ISIC_2"), ["line 3", "lesion_id"]),
        ("ham10000", edit(META, "back", "back,x"), ["line 2", "more values"]),
        ("busi", move("benign", "x"), ["none of the folders", "malignant"]),
        (
            "busi",
            move("benign/benign (1)_mask.png", "x"),
            ["no mask", "benign (1).png"],
        ),
        (
            "busi",
            move("benign/benign (1).png", "benign/benign (2).png"),
            ["no mask", "benign (2).png"],
        ),
        ("kvasir-seg", move("masks", "x"), ["no mask folder masks"]),
        ("kvasir-seg", move("images", "x"), ["no folder images"]),
        ("kvasir-seg", move("masks/a.jpg", "masks/b.jpg"), ["no mask", "a.jpg"]),
        ("kvasir-seg", write("kavsir_bboxes.json", "{"), ["kavsir_bboxes.json"]),
        ("kvasir-seg", write("kavsir_bboxes.json", '{"a": 1}'), ["TypeError"]),
        ("table", move("manifest.csv", "x"), ["no manifest.csv"]),
        ("table", edit("manifest.csv", "caption", "text"), ["no column 'caption'"]),
        (
            "table",
            edit("manifest.csv", "a lesion", " "),
            ["line 2", "caption is empty"],
        ),
        ("table", edit("manifest.csv", "a.png", "b.png"), ["line 2", "image 'b.png'"]),
        ("table", write("manifest.csv", ""), ["no column 'image'", "none"]),
        ("table", write("manifest.csv", "image,caption\n"), ["holds no image"]),
        (
            "table",
            write("manifest.csv", "image,caption\na.png,one\na.png,two\n"),
            ["line 3", "'a.png'", "line 2 too"],
        ),
        (
            "table",
            write("manifest.csv", "image,mask,caption\na.png,m.png,one\n"),
            ["line 2", "mask 'm.png'"],
        ),
    ],
)
def test_damage_is_named_with_its_place(
    tmp_path: Path, name: str, damage: Callable[[Path], None], told: list[str]
) -> None:
    MAKERS[name](tmp_path)
    adapters.read(name, tmp_path)
    damage(tmp_path)
    message = refused(name, tmp_path)
    assert all(words in message for words in told), message


def test_a_mask_without_its_image_is_named(tmp_path: Path) -> None:
    busi(tmp_path)
    paint(tmp_path / "benign/benign (7)_mask.png")
    assert "masks have no image, the first is 'benign (7)_mask.png'" in refused(
        "busi", tmp_path
    )


def test_an_unknown_dataset_and_a_missing_root_are_named(tmp_path: Path) -> None:
    assert "kvasir-seg" in refused("kvasir", tmp_path)
    assert "does not exist" in refused("busi", tmp_path / "nowhere")


def test_a_csv_that_is_not_text_is_named(tmp_path: Path) -> None:
    table(tmp_path)
    (tmp_path / "manifest.csv").write_bytes(b"image,caption\n\xff\xfe,x\n")
    assert "manifest.csv cannot be read as a UTF-8 csv" in refused("table", tmp_path)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("a.jpg,\n", "line 2: the caption of 'a.jpg' is empty"),
        ("a.jpg,x\na.jpg,y\n", "line 3: a second caption for 'a.jpg'"),
        ("b.jpg,x\n", "no caption for 1 of 1 images, the first is 'a.jpg'"),
    ],
)
def test_captions_that_do_not_fit_are_refused(
    tmp_path: Path, rows: str, told: str
) -> None:
    kvasir(tmp_path)
    (tmp_path / "captions.csv").write_text(f"image,caption\n{rows}")
    assert told in refused("kvasir-seg", tmp_path, tmp_path / "captions.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "JSONDecodeError"),
        ('[{"img_name": "a", "prompts": {}}]', "prompt 'p6'"),
        ('[{"img_name": "a", "prompts": {"p6": []}}]', "IndexError"),
        ('[{"img_name": "a", "prompts": {"p6": " "}}]', "'a' is empty"),
    ],
)
def test_malformed_prompts_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "train.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"train\.json") as caught:
        prompts.from_medvlsm([path])
    assert told in str(caught.value)


def record(image: Path, *masks: Path) -> Record:
    return Record("a", image, masks, "a", "", {})


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    paint(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image"):
        images.load(record(path), 16)


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg cannot be read as an image"):
        images.load(record(path), 16)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        images.load(record(tmp_path / "gone.png"), 16)
    with pytest.raises(DataError, match=r"gone\.png"):
        images.file_digest(tmp_path / "gone.png")


def test_a_mask_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    paint(tmp_path / "a.png")
    Image.new("L", (20, 12)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png is 20x12 pixels.* a\.png is 16x12"):
        images.load(record(tmp_path / "a.png", tmp_path / "m.png"), 16)


def test_two_records_with_one_id_are_refused(tmp_path: Path) -> None:
    twice = (record(tmp_path / "x/a.png"), record(tmp_path / "y/a.png"))
    with pytest.raises(DataError, match=r"id 'a' .*x/a\.png and .*y/a\.png"):
        Dataset("table", "", "image", twice)
    with pytest.raises(ValueError, match="modality"):
        Dataset("table", "radiology", "image", ())
    with pytest.raises(ValueError, match="unit_kind"):
        Dataset("table", "", "hospital", ())
