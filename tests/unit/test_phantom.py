"""Phantoms are what their attributes say, and lie on disk as the real sets do."""

import csv
import json
import time
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from vgmedgen.data.phantom import (
    MODALITIES,
    NEUTRAL,
    Tint,
    draw,
    position_of,
    shares,
    textures,
    tint_of,
    write_busi,
    write_ham10000,
    write_kvasir_seg,
)
from vgmedgen.data.phantom_noise import band, clouds, shift_columns
from vgmedgen.data.phantom_outline import SHAPES, Lesion, outline
from vgmedgen.errors import StateError

PX = 64


def seeded(*seed):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module", params=MODALITIES)
def hundred(request):
    return request.param, [draw(request.param, seeded(3, i), PX) for i in range(100)]


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("modality", MODALITIES)
def test_same_seed_gives_the_same_bytes_and_another_seed_others(modality):
    first, second = (draw(modality, seeded(5), PX, tint_of(1)) for _ in range(2))
    other = draw(modality, seeded(6), PX, tint_of(1))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes()
    assert first.drawn == second.drawn
    assert first.image.tobytes() != other.image.tobytes()


def test_images_and_masks_have_the_promised_form(hundred):
    _, phantoms = hundred
    for phantom in phantoms:
        assert phantom.image.shape == (PX, PX, 3)
        assert phantom.image.dtype == phantom.mask.dtype == np.uint8
        assert phantom.mask.shape == (PX, PX)
        assert set(np.unique(phantom.mask)) <= {0, 1}
        assert phantom.image.std() > 4


def test_mask_has_the_drawn_centre_and_area(hundred):
    _, phantoms = hundred
    for phantom in phantoms:
        if phantom.label == "normal":
            continue
        rows, columns = np.nonzero(phantom.mask)
        drawn = phantom.drawn
        assert phantom.mask.mean() == pytest.approx(drawn.area, abs=1 / PX**2)
        assert (columns.mean() + 0.5) / PX == pytest.approx(drawn.x, abs=1e-3)
        assert (rows.mean() + 0.5) / PX == pytest.approx(drawn.y, abs=1e-3)
        assert drawn.position == position_of(drawn.x, drawn.y)


@pytest.mark.parametrize("shape", SHAPES)
def test_outline_keeps_to_its_plan(shape):
    for seed in range(20):
        lesion = Lesion(
            label="nv",
            x=0.55,
            y=0.45,
            area=0.12,
            elongation=1.5,
            angle=0.0,
            shape=shape,
            irregularity=0.6 if shape in {"irregular", "spiculated"} else 0.1,
            softness=0.1,
            grain=seed,
        )
        region = outline(lesion, seeded(seed), PX)
        assert region.area == pytest.approx(0.12, abs=2 / PX**2)
        assert region.centre == pytest.approx((0.55, 0.45), abs=0.06)
        rows, columns = np.nonzero(region.mask)
        if shape == "oval":
            assert columns.std() / rows.std() == pytest.approx(1.5, rel=0.2)


def test_softer_lesions_fade_over_more_pixels():
    def edge(softness):
        plan = {"label": "nv", "x": 0.5, "y": 0.5, "area": 0.2, "elongation": 1.0}
        plan |= {"angle": 0.0, "shape": "round", "irregularity": 0.0, "grain": 1}
        cover = outline(Lesion(**plan, softness=softness), seeded(1), PX).cover
        return ((cover > 0.05) & (cover < 0.95)).sum()

    assert edge(0.02) < edge(0.2) < edge(0.5)


def test_lesion_differs_from_its_surround_as_drawn(hundred):
    _, phantoms = hundred
    luma = np.array([0.299, 0.587, 0.114])
    drawn, seen = [], []
    for phantom in phantoms:
        inside = phantom.mask > 0
        if inside.any():
            image = phantom.image @ luma
            around = ~inside & (image > 12)  # not the black of the frame
            drawn.append(phantom.drawn.contrast)
            seen.append((image[around].mean() - image[inside].mean()) / 255)
    assert np.corrcoef(drawn, seen)[0, 1] > 0.8


def test_every_label_occurs():
    for modality in MODALITIES:
        labels = {draw(modality, seeded(1, i), 16).label for i in range(150)}
        assert labels == set(shares(modality))


def test_shares_sum_to_one():
    for modality in MODALITIES:
        assert sum(shares(modality).values()) == pytest.approx(1)


def test_normal_ultrasound_has_an_empty_mask_and_no_lesion():
    phantom = draw("ultrasound", seeded(2), PX, label="normal")
    assert not phantom.mask.any()
    assert phantom.drawn.area == 0
    assert phantom.drawn.position == phantom.drawn.shape == "none"


def test_ultrasound_is_grey_under_any_tint():
    image = draw("ultrasound", seeded(2), PX, tint_of(4)).image
    assert (image[..., 0] == image[..., 1]).all()
    assert (image[..., 0] == image[..., 2]).all()


@pytest.mark.parametrize("modality", MODALITIES)
def test_tint_changes_the_image_but_neither_mask_nor_truth(modality):
    plain = draw(modality, seeded(8), PX, NEUTRAL)
    images = {plain.image.tobytes()}
    for device in range(4):
        tinted = draw(modality, seeded(8), PX, tint_of(device))
        assert tinted.mask.tobytes() == plain.mask.tobytes()
        assert tinted.drawn == plain.drawn
        images.add(tinted.image.tobytes())
    assert len(images) == 5


def test_tint_of_a_device_is_stable_and_neutral_changes_nothing():
    assert tint_of(3) == tint_of(3) != tint_of(4)
    canvas = seeded(1).random((8, 8, 3), dtype=np.float32)
    assert np.array_equal(NEUTRAL.apply(canvas), canvas)
    assert Tint(gain=(1.0, 0.5, 1.0)).apply(canvas)[..., 1].max() <= 0.5


def test_truth_can_be_written_as_json(hundred):
    _, phantoms = hundred
    for phantom in phantoms:
        assert json.loads(json.dumps(phantom.drawn.to_dict()))["area"] >= 0


def test_sizes_and_places_vary_widely(hundred):
    _, phantoms = hundred
    lesions = [phantom.drawn for phantom in phantoms if phantom.drawn.area]
    areas = [drawn.area for drawn in lesions]
    assert min(areas) < 0.04
    assert max(areas) > 0.3
    assert len({drawn.position for drawn in lesions}) >= 6
    assert len({drawn.colour for drawn in lesions}) >= 4


def test_melanomas_are_darker_and_rougher_than_dermatofibromas():
    def mean(label, attribute):
        drawn = [draw("dermoscopy", seeded(4, i), 32, label=label) for i in range(40)]
        return np.mean([getattr(phantom.drawn, attribute) for phantom in drawn])

    assert mean("mel", "contrast") > mean("df", "contrast")
    assert mean("mel", "irregularity") > mean("df", "irregularity")


def test_unknown_words_and_tiny_sizes_are_refused():
    with pytest.raises(ValueError, match="modality must be one of"):
        draw("mri", seeded(1), PX)
    with pytest.raises(ValueError, match="not 'polyp'"):
        draw("dermoscopy", seeded(1), PX, label="polyp")
    with pytest.raises(ValueError, match="at least 16"):
        draw("dermoscopy", seeded(1), 8)


def test_textures_are_colour_images_that_differ():
    images = [textures(seeded(i), PX) for i in range(20)]
    assert all(image.shape == (PX, PX, 3) for image in images)
    assert all(image.dtype == np.uint8 for image in images)
    assert len({image.tobytes() for image in images}) == 20
    assert textures(seeded(3), PX).tobytes() == images[3].tobytes()


def test_fields_have_unit_variance():
    assert clouds(seeded(1), PX, 1.0, n=40).std() == pytest.approx(1, rel=0.1)
    assert band(seeded(1), PX, 12).std() == pytest.approx(1, rel=0.15)


def test_shifting_columns_moves_content_down():
    field = np.zeros((8, 8), np.float32)
    field[3] = 1
    moved = shift_columns(field, np.full(8, 2, np.float32))
    assert (moved[5] == 1).all()
    assert moved.sum() == 8


def test_ham10000_lies_as_published(tmp_path):
    write_ham10000(tmp_path, 40, 1, 32, tint_of(0), dataset="device_a")
    images = sorted(tmp_path.glob("HAM10000_images_part_*/ISIC_*.jpg"))
    assert len(images) == 40
    assert {path.parent.name[-1] for path in images} == {"1", "2"}
    with (tmp_path / "HAM10000_metadata.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    expected = "lesion_id image_id dx dx_type age sex localization dataset"
    assert list(rows[0]) == expected.split()
    assert [row["image_id"] for row in rows] == [f"ISIC_{i:07d}" for i in range(1, 41)]
    assert {path.stem for path in images} == {row["image_id"] for row in rows}
    assert {row["dx"] for row in rows} == set(shares("dermoscopy"))
    assert {row["dataset"] for row in rows} == {"device_a"}
    lesions = {row["lesion_id"] for row in rows}
    assert 0.6 * 40 < len(lesions) < 40
    truths = json.loads((tmp_path / "attributes.json").read_text())
    for path in images:
        mask_name = f"{path.stem}_segmentation.png"
        mask_path = tmp_path / "HAM10000_segmentations_lesion_tschandl" / mask_name
        with Image.open(path) as image, Image.open(mask_path) as mask:
            assert image.size == mask.size == (42, 32)
            share = (np.asarray(mask) > 127).mean()
        assert share == pytest.approx(truths[path.stem]["area"], abs=0.02)


def test_two_images_of_one_lesion_resemble_each_other(tmp_path):
    write_ham10000(tmp_path, 40, 1, 32)
    with (tmp_path / "HAM10000_metadata.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    truths = json.loads((tmp_path / "attributes.json").read_text())
    seconds = 0
    for first, second in pairwise(rows):
        if first["lesion_id"] == second["lesion_id"]:
            seconds += 1
            assert first["dx"] == second["dx"]
            assert first["age"] == second["age"]
            one, two = truths[first["image_id"]], truths[second["image_id"]]
            assert one["shape"] == two["shape"]
            assert one["x"] == pytest.approx(two["x"], abs=0.25)
            assert one["rgb"] == pytest.approx(two["rgb"], abs=40)
            assert one != two
    assert seconds > 3


def test_busi_lies_as_published(tmp_path):
    write_busi(tmp_path, 60, 1, 32, tint_of(1))
    home = tmp_path / "Dataset_BUSI_with_GT"
    files = list(home.glob("*/*.png"))
    images = [path for path in files if "_mask" not in path.name]
    assert len(images) == 60
    assert {path.parent.name for path in images} == {"benign", "malignant", "normal"}
    assert any(path.stem.endswith("_mask_1") for path in files)
    truths = json.loads((tmp_path / "attributes.json").read_text())
    for path in images:
        number = path.stem.removeprefix(f"{path.parent.name} (").removesuffix(")")
        assert number.isdigit()
        masks = sorted(path.parent.glob(f"{path.stem}_mask*.png"))
        assert masks
        assert masks[0].name == f"{path.stem}_mask.png"
        parts = [np.asarray(Image.open(mask).convert("L")) > 127 for mask in masks]
        united = np.any(parts, axis=0)
        assert united.mean() == pytest.approx(truths[path.stem]["area"], abs=0.02)
        assert united.any() == (path.parent.name != "normal")


def test_kvasir_seg_lies_as_published(tmp_path):
    write_kvasir_seg(tmp_path, 12, 1, 32, tint_of(2))
    home = tmp_path / "Kvasir-SEG"
    images = sorted((home / "images").iterdir())
    assert len(images) == 12
    boxes = json.loads((home / "kavsir_bboxes.json").read_text())
    truths = json.loads((tmp_path / "attributes.json").read_text())
    assert {path.stem for path in images} == set(boxes) == set(truths)
    for path in images:
        assert path.suffix == ".jpg"
        with Image.open(path) as image, Image.open(home / "masks" / path.name) as mask:
            assert mask.format == "JPEG"
            assert image.size == mask.size
            inside = np.asarray(mask.convert("L")) > 127
        box = boxes[path.stem]["bbox"][0]
        rows, columns = np.nonzero(inside)
        assert box["label"] == "polyp"
        assert (box["xmin"], box["ymin"]) == pytest.approx(
            (columns.min(), rows.min()), abs=1
        )
        assert (box["xmax"], box["ymax"]) == pytest.approx(
            (columns.max() + 1, rows.max() + 1), abs=1
        )
        assert inside.mean() == pytest.approx(truths[path.stem]["area"], abs=0.02)


@pytest.mark.parametrize("write", [write_ham10000, write_busi, write_kvasir_seg])
def test_writers_repeat_their_bytes_and_grow_by_adding(tmp_path, write):
    for name, n, seed in (("a", 8, 1), ("b", 8, 1), ("c", 12, 1), ("d", 8, 2)):
        write(tmp_path / name, n, seed, 32)
    first, again, longer, other = (tree(tmp_path / name) for name in "abcd")
    assert first == again != other
    # HAM10000 keeps halves of a set in two folders: there a longer set moves files.
    grown = {path.replace("part_2", "part_1"): data for path, data in longer.items()}
    for path, content in first.items():
        if path.endswith((".jpg", ".png")):
            assert grown[path.replace("part_2", "part_1")] == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StateError, match="file"):
        write_busi(blocked, 2, 1, 32)


def test_drawing_is_quick_enough_for_pretraining():
    draw("dermoscopy", seeded(0), PX)  # fills the caches
    for modality in MODALITIES:
        started = time.process_time()
        for seed in range(30):
            draw(modality, seeded(seed), PX)
        # a tenth of what is usual here, so that a busy machine does not fail it
        assert 30 / (time.process_time() - started) > 25
