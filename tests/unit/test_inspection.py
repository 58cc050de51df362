"""Every image is looked at once before it trains, and a person can see what will train."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.pictures import record, save, scene
from vgmedgen.cli.data import app
from vgmedgen.data import images, inspection
from vgmedgen.data.inspection import Memory, inspect
from vgmedgen.data.records import Dataset, Record
from vgmedgen.errors import ConfigError, DataError
from vgmedgen.evaluation import contact_sheet

COLOURS, LESION = scene()


def of(label: str, share: float, masks: int = 1) -> tuple[str, ...]:
    files = (Path("m.png"),) * masks
    one = Record("a", Path("a.png"), files, "a", label, {})
    return inspection.Inspection(record=one, share=share).cautions


@pytest.mark.parametrize(
    ("label", "share", "told"),
    [
        ("benign", 0.2, ()),
        ("benign", 0.0, ("its mask is empty, though its label is 'benign'",)),
        ("", 0.0, ("its mask is empty",)),
        ("mel", 0.97, ()),
        ("mel", 0.99, ("its mask covers 99 % of the image",)),
        ("normal", 0.0, ()),
        ("Normal", 0.1, ("its mask shows a lesion, though its label is 'Normal'",)),
        (
            "no_finding",
            1,
            ("its mask shows a lesion, though its label is 'no_finding'",),
        ),
    ],
)
def test_masks_that_disagree_with_their_label_are_told(
    label: str, share: float, told: tuple[str, ...]
) -> None:
    assert of(label, share) == told
    assert of(label, share, masks=0) == ()


def table(folder: Path, refused: int = 0) -> Path:
    """A csv of four images: one right, one with an empty mask, and a normal one."""
    lesion = LESION.astype(np.uint8) * 255
    save(folder / "a.png", COLOURS)
    for name, mask in (("m", lesion), ("e", lesion * 0), ("f", lesion * 0 + 255)):
        save(folder / f"{name}.png", mask)
    rows = ["a.png,m.png,<b>right</b>,1,benign", "a.png,e.png,empty,2,malignant"]
    rows += ["a.png,e.png,nothing,3,normal", "a.png,f.png,whole,4,benign"]
    for number in range(refused):
        (folder / f"bad{number}.png").write_bytes(b"none")
        rows.append(f"bad{number}.png,,bad,{5 + number},benign")
    head = "image,mask,caption,id,label\n"
    (folder / "manifest.csv").write_text(head + "\n".join(rows) + "\n")
    return folder


def check(*words: object) -> tuple[int, str, BaseException | None]:
    found = CliRunner().invoke(app, ["check", *map(str, words)])
    return found.exit_code, found.output, found.exception


def test_data_check_tells_what_deserves_a_look(tmp_path: Path) -> None:
    code, told, _ = check("table", table(tmp_path))
    assert code == 0
    assert "table: 4 images" in told
    assert "a.png: its mask is empty, though its label is 'malignant'" in told
    assert "a.png: its mask covers 100 % of the image" in told
    assert told.count("look at") == 2


def test_data_check_counts_what_is_refused_and_still_draws_the_page(
    tmp_path: Path,
) -> None:
    page = tmp_path / "out" / "check.html"
    code, told, error = check("table", table(tmp_path, refused=7), "--page", page)
    assert code == 1
    assert isinstance(error, DataError)
    assert "table: 7 of 11 images are refused (bad0.png, bad1.png" in str(error)
    assert told.count("refused: ") == 4  # and the first with the error
    text = page.read_text("utf-8")
    assert text.count("cannot be read as an image") == 7
    assert "7 of 11 images refused" in text


def test_the_page_shows_each_image_its_outline_and_its_caption(tmp_path: Path) -> None:
    page = tmp_path / "check.html"
    code, told, _ = check("table", table(tmp_path), "--page", page)
    assert code == 0
    assert "keep it in the hospital" in told
    assert page.stat().st_mode & 0o777 == 0o600
    text = page.read_text("utf-8")
    assert len(re.findall(r'src="data:image/jpeg;base64,', text)) == 4
    assert "http" not in text.replace("http-equiv", "")
    assert "&lt;b&gt;right&lt;/b&gt;" in text
    assert "<b>right" not in text
    assert "2 of 4 deserve a look" in text
    code, _, error = check("table", tmp_path, "--page", page)
    assert isinstance(error, ConfigError)


def test_an_outline_runs_around_the_lesion_and_leaves_it_as_it_is() -> None:
    pixels = np.full((40, 40, 3), 90, np.uint8)
    lesion = np.zeros((40, 40), bool)
    lesion[10:20, 15:30] = True
    drawn = contact_sheet.outlined(pixels, lesion)
    changed = (drawn != 90).any(-1)
    assert drawn.shape == (80, 80, 3)
    assert not changed[20:40, 30:60].any()
    assert changed[18:20, 30:60].all()
    assert changed.sum() < 80 * 3 * 4
    assert not (contact_sheet.outlined(pixels, lesion & False) != 90).any()
    whole = (contact_sheet.outlined(pixels, lesion | True) != 90).any(-1)
    assert whole[[0, -1]].all()
    assert not whole[2:-2, 2:-2].any()


def test_of_many_images_an_even_choice_is_shown(tmp_path: Path) -> None:
    one = record(tmp_path / "a.png")
    found = [inspection.Inspection(record=one, share=n / 10_000) for n in range(1500)]
    shares = [one.share for one in contact_sheet.chosen(found)[2]]
    assert len(shares) == contact_sheet.SHOWN
    assert shares[0] == 0
    assert max(np.diff(shares)) < 5 / 10_000


def test_what_the_check_finds_is_what_training_does(tmp_path: Path) -> None:
    folder = table(tmp_path, refused=2)
    thirds = np.repeat(np.array([0, 1, 2], np.uint8), 32)[None].repeat(72, axis=0)
    save(folder / "labels.png", thirds)
    Image.fromarray(COLOURS).save(
        folder / "pages.tif", save_all=True, append_images=[Image.new("RGB", (9, 9))]
    )
    paths = [
        record(folder / "a.png", folder / "labels.png"),
        record(folder / "pages.tif"),
    ]
    paths += [record(folder / f"bad{n}.png") for n in range(2)]
    paths += [record(folder / "a.png", folder / "m.png"), record(folder / "gone.png")]
    for one, found in zip(paths, inspect(paths, Memory(), lambda _: None), strict=True):
        if found.refused:
            with pytest.raises(DataError, match=re.escape(found.refused)):
                images.load(one, 64)
        else:
            images.load(one, 64)
    assert [bool(one.refused) for one in inspect(paths, Memory(), lambda _: None)] == [
        *(True, True, True, True, False, True)
    ]


def test_a_whole_dataset_passes(tmp_path: Path) -> None:
    save(tmp_path / "a.png", COLOURS)
    dataset = Dataset("table", "", "image", (record(tmp_path / "a.png"),))
    found = inspect(dataset.records, Memory(tmp_path / "kept.json"), lambda _: None)
    inspection.check(found, "table")
    assert "1 image can be read" in contact_sheet.page(dataset, found, lambda _: None)
