import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vgmedgen.data import adapters, images, prompts, split
from vgmedgen.data.layouts import write_phantoms
from vgmedgen.data.phantom import tint_of

REAL = Path(os.environ.get("VGMEDGEN_DATA", Path(__file__).parents[3] / "shared/data"))
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
COLUMNS = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"


def paint(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def picture(path: Path, seed: int) -> None:
    paint(path, np.random.default_rng(seed).integers(0, 255, (12, 16, 3)))


def square(path: Path, left: int, right: int) -> None:
    mask = np.zeros((12, 16))
    mask[4:8, left:right] = 255
    paint(path, mask)


def ham10000(folder: Path, part: str = "HAM10000_images_part_1") -> Path:
    rows = [COLUMNS, "HAM_9,ISIC_9,nv,histo,40.0,male,back,elsewhere"]
    for number in range(3):
        name = f"ISIC_{number}"
        picture(folder / part / f"{name}.jpg", number)
        square(
            folder / f"HAM10000_segmentations_lesion_tschandl/{name}_segmentation.png",
            2,
            9,
        )
        rows.append(f"HAM_{number // 2},{name},mel,histo,,female,back,here")
    (folder / "HAM10000_metadata.csv").write_text("\n".join(rows))
    return folder


def busi(folder: Path) -> Path:
    for label in ("benign", "malignant", "normal"):
        picture(folder / label / f"{label} (1).png", len(label))
        square(
            folder / label / f"{label} (1)_mask.png", 0, 0 if label == "normal" else 3
        )
    square(folder / "benign/benign (1)_mask_1.png", 9, 12)
    return folder


def kvasir(folder: Path) -> Path:
    for name in ("a", "b"):
        picture(folder / f"images/{name}.jpg", ord(name))
        square(folder / f"masks/{name}.jpg", 3, 12)
    boxes = {name: {"height": 12, "width": 16, "bbox": [{}, {}]} for name in "ab"}
    (folder / "kavsir_bboxes.json").write_text(json.dumps(boxes))
    return folder


@pytest.mark.parametrize("part", ["HAM10000_images_part_1", "HAM10000_images_part_2"])
def test_ham10000_takes_the_images_that_are_there(tmp_path: Path, part: str) -> None:
    dataset = adapters.read("ham10000", ham10000(tmp_path, part))
    assert [record.id for record in dataset.records] == ["ISIC_0", "ISIC_1", "ISIC_2"]
    assert (dataset.units, dataset.unit_kind) == (("HAM_0", "HAM_1"), "lesion")
    first = dataset.records[0]
    assert first.label == "mel"
    assert first.facts["dataset"] == "here"
    assert "age" not in first.facts


def test_ham10000_reads_metadata_without_a_suffix_from_the_folder_above(
    tmp_path: Path,
) -> None:
    folder = ham10000(tmp_path / "below")
    (folder / "HAM10000_metadata.csv").rename(folder / "HAM10000_metadata")
    assert len(adapters.read("ham10000", tmp_path).records) == 3


def test_busi_unites_masks_and_keeps_normal_images(tmp_path: Path) -> None:
    dataset = adapters.read("busi", busi(tmp_path / "Dataset_BUSI_with_GT").parent)
    found = {record.label: record for record in dataset.records}
    assert len(found["benign"].masks) == 2
    assert (
        images.load(found["benign"], 16)[1].sum()
        > images.load(found["malignant"], 16)[1].sum()
    )
    assert images.load(found["normal"], 16)[1].sum() == 0
    assert dataset.unit_kind == "image"


def test_kvasir_seg_counts_polyps_by_their_boxes(tmp_path: Path) -> None:
    dataset = adapters.read("kvasir_seg", kvasir(tmp_path / "Kvasir-SEG").parent)
    assert [record.facts for record in dataset.records] == [{"polyps": "2"}] * 2
    (tmp_path / "Kvasir-SEG/kavsir_bboxes.json").unlink()
    assert adapters.read("kvasir-seg", tmp_path).records[0].facts == {}


def test_a_table_reads_paths_beside_it_and_turns_columns_into_facts(
    tmp_path: Path,
) -> None:
    for number in range(3):
        picture(tmp_path / f"in/{number}.png", number)
    square(tmp_path / "in/m.png", 2, 5)
    (tmp_path / "manifest.csv").write_text(
        "image,mask,caption,unit,label,scanner\n"
        "in/0.png,in/m.png,a lesion,p1,bad,X\n"
        'in/1.png,in/m.png;in/m.png,"one, two",p1,,\n'
        "in/2.png,,nothing,p2,,\n"
    )
    dataset = adapters.read("table", tmp_path)
    assert [len(record.masks) for record in dataset.records] == [1, 2, 0]
    assert dataset.units == ("p1", "p2")
    assert dataset.unit_kind == "patient"
    assert dataset.records[0].facts == {"scanner": "X"}
    assert dataset.records[1].caption == "one, two"
    assert images.load(dataset.records[2], 16)[1].sum() == 0


def test_a_table_without_units_has_the_image_as_its_unit(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", 0)
    (tmp_path / "list.csv").write_text("image,caption\n0.png,a lesion\n")
    assert adapters.read("table", tmp_path / "list.csv").unit_kind == "image"


def test_captions_from_a_csv_are_matched_by_file_name_stem_or_id(
    tmp_path: Path,
) -> None:
    folder = kvasir(tmp_path / "k")
    told = tmp_path / "captions.csv"
    told.write_text("image,caption\na.jpg,first\nb,second\nnot-here,third\n")
    dataset = adapters.read("kvasir-seg", folder, captions=told)
    assert [record.caption for record in dataset.records] == ["first", "second"]


def test_medvlsm_prompts_become_a_csv_under_the_published_names(tmp_path: Path) -> None:
    told = tmp_path / "test.json"
    entry = {"img_name": "1_benign.png", "prompts": {"p6": ["one mass", "other"]}}
    rest = [
        {"segment_id": f"1_{label}", "prompts": {"p6": f"{label} tissue"}}
        for label in ("malignant", "normal")
    ]
    told.write_text(json.dumps([entry, *rest]))
    pairs = prompts.from_medvlsm([told])
    assert pairs[0] == ("benign (1).png", "one mass")
    prompts.write_captions(tmp_path / "captions.csv", pairs)
    folder = busi(tmp_path / "Dataset_BUSI_with_GT")
    dataset = adapters.read("busi", folder, captions=tmp_path / "captions.csv")
    assert {record.caption for record in dataset.records} == {
        "one mass",
        "malignant tissue",
        "normal tissue",
    }


@real
@pytest.mark.parametrize(
    ("name", "count"), [("ham10000", 1500), ("busi", 624), ("kvasir-seg", 800)]
)
def test_the_real_datasets_are_read_whole(name: str, count: int) -> None:
    dataset = adapters.read(name, REAL / name)
    assert len(dataset.records) == count
    image, mask = images.load(dataset.records[-1], 64)
    assert image.shape == (3, 64, 64)
    assert mask.shape == (1, 64, 64)


@real
def test_the_real_ham10000_splits_into_four_sources_without_cutting_a_lesion() -> None:
    dataset = adapters.read("ham10000", REAL / "ham10000")
    sites = split.by_column(dataset, "dataset")
    assert set(sites) == {"rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias"}
    held = Counter(unit for units in sites.values() for unit in units)
    assert set(held) == set(dataset.units)
    assert set(held.values()) == {1}


@real
@pytest.mark.parametrize(
    ("name", "text"), [("busi", "busi"), ("kvasir-seg", "kvasir_polyp")]
)
def test_the_real_medvlsm_prompts_cover_their_datasets(
    name: str, text: str, tmp_path: Path
) -> None:
    files = [
        REAL / f"text/medvlsm/{text}/{part}.json" for part in ("train", "val", "test")
    ]
    prompts.write_captions(tmp_path / "captions.csv", prompts.from_medvlsm(files))
    dataset = adapters.read(name, REAL / name, captions=tmp_path / "captions.csv")
    assert all(record.caption for record in dataset.records)


def test_two_files_with_equal_bytes_are_one_unit(tmp_path):
    write_phantoms("ultrasound", tmp_path, 12, 0, 32, tint_of(0))
    folder = tmp_path / "Dataset_BUSI_with_GT"
    (original,) = folder.glob("benign/benign (1).png")
    before = adapters.read("busi", tmp_path)
    copy = folder / "malignant" / "malignant (900).png"
    copy.write_bytes(original.read_bytes())
    mask = original.with_name("benign (1)_mask.png")
    copy.with_name("malignant (900)_mask.png").write_bytes(mask.read_bytes())
    after = adapters.read("busi", tmp_path)
    assert len(after.records) == len(before.records) + 1
    assert after.units == before.units
    shared = {r.unit for r in after.records if r.image in {original, copy}}
    assert len(shared) == 1
