"""Pictures that stand in several units are found, joined and shown; others are not."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from tests.altered import ALTERED, altered
from tests.planted import copied
from vgmedgen.cli import app
from vgmedgen.data import adapters, images
from vgmedgen.data.layouts import LAYOUTS, write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.data.records import Record
from vgmedgen.data.tables import write_rows
from vgmedgen.errors import DataError
from vgmedgen.gate import twins, twins_page

COUNT, SIDE = 30, 64


def annotated(picture):
    """As a reader leaves it: calipers across, a word in a corner."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    draw.line((20, 30, 44, 34), fill="white")
    draw.line((30, 20, 34, 44), fill="yellow")
    draw.text((2, SIDE - 14), "LT", fill="white")
    return np.asarray(image)


def kind_of(name, picture):
    if name == "annotated":
        return annotated(picture)
    rng = np.random.default_rng(0)
    if name in ALTERED:
        return altered(name, picture, picture, rng)
    return copied(name, picture, rng)


def read(path):
    pixels, _ = images.load(Record("", path, (), "", "", {}), SIDE)
    return pixels.movedim(0, -1).numpy()


def planted(folder, modality, plants, count=COUNT):
    """A table of phantoms in their units, and of copies: (kind, of which, unit)."""
    write_phantoms(modality, folder / "drawn", count, 0, SIDE, tint_of(0))
    drawn = adapters.read(LAYOUTS[modality], folder / "drawn").records
    rows, units = [], {}
    for number, record in enumerate(drawn):
        name = f"{number:02}.png"
        Image.fromarray(read(record.image)).save(folder / name)
        unit = units.setdefault(record.unit, f"unit-{number:02}")
        rows.append((name, "a lesion", unit))
    for kind, row, unit in plants:
        name = f"{unit}.png"
        Image.fromarray(kind_of(kind, read(drawn[row].image))).save(folder / name)
        rows.append((name, "a lesion", unit))
    write_rows(folder / "manifest.csv", ("image", "caption", "unit"), rows)
    return adapters.read("table", folder)


PLANTS = (
    ("mirrored", 3, "copy-a"),
    ("crop 90 %", 7, "copy-b"),
    ("annotated", 11, "copy-c"),
    ("mirror+crop+JPEG", 15, "copy-d"),
)


@pytest.fixture(scope="module")
def breast(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("breast"), "ultrasound", PLANTS)


@pytest.fixture(scope="module")
def found(breast):
    return twins.find(breast, SIDE)


@pytest.mark.parametrize(
    ("modality", "count"),
    [("dermoscopy", COUNT), ("endoscopy", 2 * COUNT)],
)
def test_planted_copies_are_joined_and_phantoms_of_one_kind_are_not(
    tmp_path, modality, count
):
    dataset = planted(tmp_path, modality, PLANTS, count)
    groups = twins.find(dataset, SIDE).groups
    assert groups == {
        unit: [unit, dataset.records[row].unit] for _, row, unit in PLANTS
    }


def test_what_is_joined_keeps_its_images_and_goes_by_the_smallest_name(found, breast):
    assert found.groups == {unit: [unit, f"unit-{row:02}"] for _, row, unit in PLANTS}
    assert len(found.after.units) == COUNT
    assert found.images == 2 * len(PLANTS)
    assert [one.image for one in found.after.records] == [
        one.image for one in breast.records
    ]
    assert found.after.unit_kind == breast.unit_kind


def test_the_most_doubtful_pair_comes_first(found):
    assert len(found.pairs) == len(PLANTS)
    firm = [pair.firmness for pair in found.pairs]
    assert firm == sorted(firm)
    assert firm[0] >= 1


FRAMED = (("stretched 1:1.25", 7, "copy-a"), ("padded to 125 %", 15, "copy-b"))


def test_copies_framed_otherwise_are_joined_and_the_page_says_by_what(tmp_path):
    result = twins.find(planted(tmp_path, "ultrasound", FRAMED), SIDE)
    assert result.groups == {unit: [unit, f"unit-{row:02}"] for _, row, unit in FRAMED}
    told = twins_page.page(result, tmp_path / "units.csv")
    assert "times as many patches in common" in told


def test_the_order_of_the_files_changes_nothing(found, breast):
    rows = np.random.default_rng(1).permutation(len(breast.records))
    other = twins.find(
        replace(breast, records=tuple(breast.records[row] for row in rows)), SIDE
    )
    assert other.pairs == found.pairs
    assert other.groups == found.groups


def plain_pairs(pictures):
    """Pairs by plain correlation of all pixels, over turns, mirrors and shifts."""
    most, wide = 3, SIDE - 6

    def normed(picture):
        flat = picture.reshape(-1) - picture.mean()
        return flat / np.linalg.norm(flat)

    inner = np.stack([normed(p[most:-most, most:-most]) for p in pictures])
    found = set()
    for row, picture in enumerate(pictures):
        views = [np.rot90(side, turn) for side in (picture, picture[:, ::-1])
                 for turn in range(4)]  # fmt: skip
        moved = [
            normed(view[y : y + wide, x : x + wide])
            for view in views
            for y in range(2 * most + 1)
            for x in range(2 * most + 1)
        ]
        alike = (np.stack(moved) @ inner.T).max(0)
        found |= {frozenset((row, int(k))) for k in np.flatnonzero(alike > 0.95)}
    return {pair for pair in found if len(pair) > 1}


def test_on_few_images_it_finds_what_comparing_every_pair_of_pixels_finds(tmp_path):
    plants = [
        *(("mirrored", 2, "copy-a"), ("quarter turn", 4, "copy-b")),
        *(
            ("shift", 6, "copy-c"),
            ("noise 5", 8, "copy-d"),
            ("upside down", 10, "copy-e"),
        ),
    ]
    dataset = planted(tmp_path, "ultrasound", plants)
    place = {record.id: row for row, record in enumerate(dataset.records)}
    greys = [read(record.image).astype(float).mean(2) for record in dataset.records]
    expected = plain_pairs(greys)
    assert len(expected) == len(plants)
    pairs = twins.find(dataset, SIDE).pairs
    assert {
        frozenset((place[p.first.id], place[p.second.id])) for p in pairs
    } == expected


def test_copies_that_hide_one_another_all_hang_together(tmp_path):
    plants = [
        *(
            ("noise 5", 5, "copy-a"),
            ("noise 10", 5, "copy-b"),
            ("mirrored", 5, "copy-c"),
        ),
        *(("crop 90 %", 5, "copy-d"), ("JPEG 50", 5, "copy-e")),
    ]
    groups = twins.find(planted(tmp_path, "ultrasound", plants), SIDE).groups
    assert groups == {"copy-a": [*(unit for _, _, unit in plants), "unit-05"]}


def test_images_of_one_unit_are_not_compared_with_each_other(tmp_path):
    dataset = planted(tmp_path, "ultrasound", [("mirrored", 5, "unit-05x")])
    held = {"unit-05x": "unit-05"}
    records = (replace(r, unit=held.get(r.unit, r.unit)) for r in dataset.records)
    assert twins.find(replace(dataset, records=tuple(records)), SIDE).pairs == ()


def test_the_csv_is_a_grouping_after_which_nothing_is_found(found, tmp_path):
    twins.write(found, tmp_path / "units.csv")
    with (tmp_path / "units.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == len(found.before.records)
    root = found.before.records[0].image.parent
    grouped = adapters.read("table", root, grouping=tmp_path / "units.csv")
    assert grouped == found.after
    assert twins.find(grouped, SIDE).pairs == ()


def test_too_few_units_to_tell_are_refused(breast):
    with pytest.raises(DataError, match=r"has 12 units; .* 20 at least"):
        twins.find(breast.only(breast.units[:12]), SIDE)


def test_the_page_shows_every_pair_and_needs_nothing_from_anywhere(found, tmp_path):
    path = tmp_path / "twins.html"
    twins_page.write(found, tmp_path / "units.csv", path)
    page = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert page.count("<img") == 2 * len(PLANTS)
    assert all(
        f"{unit}.png" in page and f"{row:02}.png" in page for _, row, unit in PLANTS
    )
    assert "stays in the hospital" in page
    assert not re.search(r"<script|https?://|<link|url\(", page)
    assert set(re.findall(r'src="([a-z]+:)', page)) == {"data:"}


def ask(*words):
    return CliRunner().invoke(app, ["data", "twins", *map(str, words)])


def test_the_command_writes_units_and_a_page_and_says_one_line(breast, tmp_path):
    root, out, page = (
        breast.records[0].image.parent,
        tmp_path / "u.csv",
        tmp_path / "p.html",
    )
    told = ask("table", root, "--out", out, "--page", page, "--px", 64)
    assert told.exit_code == 0, told.output
    assert "8 of 34 images" in told.output
    assert "8 units are joined into 4, 34 become 30" in told.output
    assert page.exists()
    check = ["data", "check", "table", str(root), "--grouping", str(out)]
    assert "34 images, 30 units" in CliRunner().invoke(app, check).output
    again = ask(
        "table", root, "--out", tmp_path / "2.csv", "--grouping", out, "--px", 64
    )
    assert "no two of 30 units share a picture" in again.output


@pytest.mark.parametrize("there", ["u.csv", "p.html"])
def test_the_command_overwrites_nothing(breast, tmp_path, there):
    (tmp_path / there).write_text("a person's work")
    root = breast.records[0].image.parent
    told = ask(
        "table", root, "--out", tmp_path / "u.csv", "--page", tmp_path / "p.html"
    )
    assert told.exit_code != 0
    assert "exists" in str(told.exception)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "a person's work"
