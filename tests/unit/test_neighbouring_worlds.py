"""Two hospitals that differ in one patient's pictures have the same units, or no claim."""

import dataclasses
import shutil

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from client.preflight.data import _source
from client.preflight.place import Place
from vgmedgen.data import adapters
from vgmedgen.data.tables import write_rows
from vgmedgen.errors import DataError
from vgmedgen.site.folder import Site
from vgmedgen.training import accountable


@pytest.fixture
def world(private_hospitals, tmp_path):
    """A hospital with images of its own, as a table; what privacy it allows can be set."""

    def make(name: str, privacy: float = 6.0, **source):
        folder = shutil.copytree(
            private_hospitals[0],
            tmp_path / name,
            ignore=shutil.ignore_patterns("cache", "runs"),
        )
        old = Site(private_hospitals[0]).datasets[0]
        (folder / "images").mkdir()
        rows = []
        for record in old.records:
            place = folder / "images" / f"{record.id}{record.image.suffix}"
            shutil.copy(record.image, place)
            rows.append((f"images/{place.name}", "a lesion", record.unit))
        write_rows(
            folder / "manifest.csv", ("image", "caption", f"{old.unit_kind}_id"), rows
        )
        told = OmegaConf.load(folder / "site.yaml")
        told.sources = [{"dataset": "table", "root": "manifest.csv", **source}]
        told.heldout_units = None
        told.privacy = {"epsilon": privacy, "delta": 1e-5}
        OmegaConf.save(told, folder / "site.yaml")
        return folder

    return make


def of_two_units(folder):
    """The first image of each of two units."""
    records = Site(folder).datasets[0].records
    other = next(one for one in records if one.unit != records[0].unit)
    return records[0], other


def blank(path):
    with Image.open(path) as opened:
        size = opened.size
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path)


def test_units_that_pixels_would_join_are_refused_under_a_claim(world, private_micro):
    plan = private_micro.plan
    folder = world("twins")
    before = Site(folder).units
    one, other = of_two_units(folder)
    shutil.copy(one.image, other.image)
    site = Site(folder)
    with pytest.raises(DataError, match="same bytes in two units") as refused:
        site.check(plan)
    assert one.image.name in str(refused.value)
    assert "grouping" in str(refused.value)
    # in the neighbouring world that picture is blank, and there is one unit more
    blank(other.image)
    apart = Site(folder)
    assert apart.units == before
    apart.check(plan)


def test_a_table_of_units_makes_both_worlds_alike(world, private_micro):
    folder = world("grouped", grouping="units.csv")
    rows = [
        (row.split(",")[0].rsplit("/", 1)[-1], row.split(",")[2])
        for row in (folder / "manifest.csv").read_text().splitlines()[1:]
    ]
    write_rows(folder / "units.csv", ("image", "unit"), rows)
    one, other = of_two_units(folder)
    joined = [(name, one.unit if unit == other.unit else unit) for name, unit in rows]
    write_rows(folder / "units.csv", ("image", "unit"), joined)
    shutil.copy(one.image, other.image)
    worlds = [Site(folder)]
    found = [(worlds[0].datasets[0].units, worlds[0].heldout_units, worlds[0].units)]
    worlds[0].check(private_micro.plan)
    blank(other.image)
    apart = Site(folder)
    apart.check(private_micro.plan)
    found.append((apart.datasets[0].units, apart.heldout_units, apart.units))
    assert found[0] == found[1]


def test_without_a_claim_copies_still_stay_together(world, micro):
    folder = world("bare", privacy=0.0)
    one, other = of_two_units(folder)
    shutil.copy(one.image, other.image)
    (dataset,) = Site(folder).datasets
    assert dataset.copies == ((one.image, other.image),)
    assert len({r.unit for r in dataset.records if r.image in dataset.copies[0]}) == 1
    Site(folder).check(micro.plan)


def test_copies_that_a_site_does_not_use_are_none_of_its_units(world):
    folder = world("part")
    one, other = of_two_units(folder)
    shutil.copy(one.image, other.image)
    dataset = adapters.read("table", folder)
    joined = next(r.unit for r in dataset.records if r.image == one.image)
    rest = dataset.only(set(dataset.units) - {joined})
    assert dataset.copies
    assert rest.copies == ()
    accountable.check_structure([rest], "a")


@pytest.mark.parametrize("privacy", [0.0, 6.0])
def test_the_check_says_so_before_a_run_asks(world, privacy):
    folder = world("checked", privacy=privacy)
    one, other = of_two_units(folder)
    shutil.copy(one.image, other.image)
    place = Place(folder)
    source, dataset = place.site.config.sources[0], place.site.datasets[0]
    if privacy:
        with pytest.raises(DataError, match="same bytes in two units"):
            _source(place, source, lambda: dataset)
    else:
        assert "units" in _source(place, source, lambda: dataset)
    whole = dataclasses.replace(dataset, copies=())
    assert "units" in _source(place, source, lambda: whole)
