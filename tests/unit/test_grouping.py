"""A csv that says which images are of one patient: it joins units and never divides one."""

import dataclasses
import itertools

import numpy as np
import pytest
from PIL import Image

from simulations.sites import make_pooled, make_sites
from vgmedgen.config.run import Source
from vgmedgen.data import adapters
from vgmedgen.data.adapters import given
from vgmedgen.data.joining import joined
from vgmedgen.data.layouts import write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.data.tables import write_rows
from vgmedgen.errors import DataError
from vgmedgen.site.folder import Site


@pytest.fixture(scope="module")
def breast(tmp_path_factory: pytest.TempPathFactory):
    """A folder of 36 ultrasound phantoms in the layout of BUSI."""
    folder = tmp_path_factory.mktemp("breast")
    write_phantoms("ultrasound", folder, 36, 0, 32, tint_of(0))
    return folder


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def table(folder, rows):
    """A table of (image, unit, seed); equal seeds are equal bytes."""
    for name, _, seed in rows:
        picture(folder / name, seed)
    said = [(name, "a lesion", unit) for name, unit, _ in rows]
    write_rows(folder / "manifest.csv", ("image", "caption", "unit"), said)
    return folder


def units_in(folder, rows):
    write_rows(folder / "units.csv", ("image", "unit"), rows)
    return folder / "units.csv"


def by_two(folder, tmp_path, name=lambda record: record.image.name):
    """A csv that joins the units of a folder two by two, in the order of their names."""
    dataset = adapters.read("busi", folder)
    place = {unit: number // 2 for number, unit in enumerate(dataset.units)}
    rows = [(name(one), f"patient-{place[one.unit]:02}") for one in dataset.records]
    return units_in(tmp_path, rows)


@pytest.mark.parametrize(
    "name",
    [lambda r: r.image.name, lambda r: r.image.stem, lambda r: r.id],
    ids=["file name", "stem", "id"],
)
def test_a_grouping_joins_units_under_its_own_names(breast, tmp_path, name):
    before = adapters.read("busi", breast)
    after = adapters.read("busi", breast, grouping=by_two(breast, tmp_path, name))
    assert after.units == tuple(f"patient-{n:02}" for n in range(18))
    assert [one.image for one in after.records] == [one.image for one in before.records]


def test_the_kind_of_a_unit_does_not_grow_by_the_word_of_a_csv(breast, tmp_path):
    after = adapters.read("busi", breast, grouping=by_two(breast, tmp_path))
    assert after.unit_kind == adapters.read("busi", breast).unit_kind == "image"


def test_rows_of_images_that_are_elsewhere_are_passed_over(tmp_path):
    folder = table(tmp_path, [("a.png", "p", 1), ("b.png", "q", 2)])
    rows = [("a.png", "x"), ("b.png", "x"), ("gone.png", "y")]
    found = adapters.read("table", folder, grouping=units_in(tmp_path, rows))
    assert found.units == ("x",)


PLAIN = [("a.png", "p", 1), ("b.png", "p", 2), ("c.png", "q", 3)]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("a.png", "x"), ("b.png", "x")], r"no unit for 1 of 3 images, .*'c.png'"),
        (
            [("a.png", "x"), ("b.png", ""), ("c.png", "x")],
            r"line 3: the unit of 'b.png'",
        ),
        (
            [("a.png", "x"), ("b.png", "x"), ("c.png", "x"), ("a.png", "x")],
            r"line 5: a second unit for 'a.png'",
        ),
        (
            [("a.png", "x"), ("b.png", "x"), ("c.png", "x"), ("a", "y")],
            r"line 5: 'a.png' stands on line 2 too",
        ),
        (
            [("a.png", "x"), ("b.png", "y"), ("c.png", "y")],
            r"line 3: 'b.png' gets the unit 'y', .* line 2 gets 'x', .* of unit 'p'",
        ),
    ],
    ids=["missing", "empty", "twice", "two names", "divided"],
)
def test_a_grouping_that_does_not_fit_is_refused_in_one_line(tmp_path, rows, told):
    folder = table(tmp_path, PLAIN)
    with pytest.raises(DataError, match=told) as refused:
        adapters.read("table", folder, grouping=units_in(tmp_path, rows))
    assert "\n" not in str(refused.value)
    assert "units.csv" in str(refused.value)


def test_a_name_that_fits_two_images_is_refused_and_their_ids_are_told(tmp_path):
    folder = table(tmp_path, [("one/1.png", "p", 1), ("two/1.png", "q", 2)])
    with pytest.raises(DataError, match=r"line 2: .*'one/1.png' and 'two/1.png'"):
        adapters.read("table", folder, grouping=units_in(tmp_path, [("1.png", "x")]))
    rows = [("one/1.png", "x"), ("two/1.png", "y")]
    found = adapters.read("table", folder, grouping=units_in(tmp_path, rows))
    assert found.units == ("x", "y")


def test_every_image_gets_a_name_that_only_it_answers_to(tmp_path):
    rows = [("one/1.png", "p", 1), ("two/1.png", "q", 2), ("two/3.png", "r", 3)]
    dataset = adapters.read("table", table(tmp_path, rows))
    names = given.own_names(dataset)
    assert names == ["one/1.png", "two/1.png", "3.png"]
    told = [(name, "x") for name in names]
    found = adapters.read("table", tmp_path, grouping=units_in(tmp_path, told))
    assert found.units == ("x",)


def test_images_with_equal_bytes_stay_one_unit_whatever_the_csv_says(tmp_path):
    folder = table(tmp_path, [("a.png", "p", 1), ("b.png", "q", 1), ("c.png", "r", 2)])
    rows = [("a.png", "x"), ("b.png", "y"), ("c.png", "z")]
    found = adapters.read("table", folder, grouping=units_in(tmp_path, rows))
    assert [record.unit for record in found.records] == ["x", "x", "z"]


def test_units_that_hang_together_over_several_copies_are_one(tmp_path):
    rows = [("1.png", "b", 1), ("2.png", "c", 1), ("3.png", "a", 2), ("4.png", "b", 2)]
    rows += [("5.png", "c", 3), ("6.png", "d", 3), ("7.png", "e", 4)]
    for number, order in enumerate(itertools.islice(itertools.permutations(rows), 40)):
        found = adapters.read("table", table(tmp_path / str(number), order))
        assert found.units == ("a", "e")


def test_joined_names_are_those_of_a_plain_search_through_the_ties():
    rng = np.random.default_rng(0)
    for _ in range(200):
        units = [f"u{n}" for n in range(9)]
        ties = [tuple(rng.choice(units, 2)) for _ in range(rng.integers(1, 9))]
        together = {unit: {unit} for unit in units}
        for one, other in ties * len(units):
            both = together[one] | together[other]
            together |= dict.fromkeys(both, both)
        lowest = {unit: min(group) for unit, group in together.items()}
        expected = {unit: low for unit, low in lowest.items() if unit != low}
        assert joined(ties) == expected
        assert joined(ties[::-1]) == expected


def test_a_site_reads_the_grouping_that_lies_in_its_folder(hospital, breast):
    by_two(breast, hospital.folder)
    path = hospital.folder / "site.yaml"
    text = path.read_text().split("sources:")[0]
    source = f"{{dataset: busi, root: {breast}, grouping: units.csv"
    path.write_text(f"{text}sources: [{source}}}]\n")
    site = Site(hospital.folder)
    assert site.datasets[0].units == tuple(f"patient-{n:02}" for n in range(18))
    path.write_text(f"{text}sources: [{source}, units: [patient-00, benign (1)]}}]\n")
    with pytest.raises(DataError, match=r"lists the unit 'benign \(1\)'"):
        _ = Site(hospital.folder).datasets


def test_a_held_out_unit_that_lost_its_name_is_refused_and_never_trains(
    hospital, breast
):
    by_two(breast, hospital.folder)
    path = hospital.folder / "site.yaml"
    text = path.read_text().split("sources:")[0]
    text += f"sources: [{{dataset: busi, root: {breast}, grouping: units.csv}}]\n"
    path.write_text(f"{text}heldout_units: [patient-03]\n")
    assert Site(hospital.folder).heldout_units == {"patient-03"}
    path.write_text(f"{text}heldout_units: [patient-03, benign (1)]\n")
    with pytest.raises(DataError, match=r"lists the unit 'benign \(1\)', which no"):
        _ = Site(hospital.folder).heldout_units


def test_simulated_sites_share_grouped_units_and_never_divide_one(
    micro, bundle, breast, tmp_path
):
    told = {
        "sources": [Source(name="busi", dataset="busi")],
        "root": str(breast),
        "split": "dirichlet",
        "sites": 2,
        "grouping": str(by_two(breast, tmp_path)),
    }
    config = dataclasses.replace(micro, data=dataclasses.replace(micro.data, **told))
    sites = [Site(folder) for folder in make_sites(config, bundle, tmp_path / "run")]
    held = [dataset.units for site in sites for dataset in site.datasets]
    assert sorted(itertools.chain(*held)) == [f"patient-{n:02}" for n in range(18)]
    assert sum(len(site.samples) for site in sites) == 36
    pooled = make_pooled(config, bundle, tmp_path / "run", sites)
    assert sum(len(dataset.units) for dataset in pooled.datasets) == 18
    assert pooled.heldout_units == sites[0].heldout_units | sites[1].heldout_units
