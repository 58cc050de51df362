from collections import Counter
from pathlib import Path

import pytest

from vgmedgen.data import split
from vgmedgen.data.records import Dataset, Record
from vgmedgen.errors import DataError


def dataset(units: int, labels: str = "ab", images: int = 2) -> Dataset:
    records = [
        Record(
            f"{unit}-{image}",
            Path(f"{unit}-{image}.png"),
            (),
            f"u{unit}",
            labels[unit % len(labels)],
            {"source": "xyz"[unit % 3]},
        )
        for unit in range(units)
        for image in range(images)
    ]
    return Dataset("table", "", "patient", tuple(records))


def stored(folder: Path, name: str, content: bytes, label: str = "") -> Record:
    path = folder / f"{name}.png"
    path.write_bytes(content)
    return Record(label or name, path, (), name, "", {})


@pytest.mark.parametrize("alpha", [1e-4, 0.1, 0.5, 100.0])
@pytest.mark.parametrize("labels", ["a", "abc"])
def test_dirichlet_gives_every_unit_to_exactly_one_site(
    alpha: float, labels: str
) -> None:
    data = dataset(60, labels)
    sites = split.dirichlet(data, 4, alpha, seed=3)
    assert list(sites) == ["site-1", "site-2", "site-3", "site-4"]
    held = Counter(unit for units in sites.values() for unit in units)
    assert set(held) == set(data.units)
    assert set(held.values()) == {1}
    assert min(map(len, sites.values())) >= split.MINIMUM


def test_dirichlet_is_the_same_for_the_same_seed_only() -> None:
    data = dataset(60)
    assert split.dirichlet(data, 3, 0.5, 1) == split.dirichlet(data, 3, 0.5, 1)
    assert split.dirichlet(data, 3, 0.5, 1) != split.dirichlet(data, 3, 0.5, 2)


def test_a_smaller_alpha_makes_labels_more_uneven() -> None:
    data = dataset(600)
    label = {record.unit: record.label for record in data.records}

    def unevenness(alpha: float) -> float:
        sites = split.dirichlet(data, 3, alpha, 0)
        shares = [sum(label[u] == "a" for u in s) / len(s) for s in sites.values()]
        return max(shares) - min(shares)

    assert unevenness(0.1) > unevenness(1000) + 0.2


def test_too_few_units_for_the_sites_are_refused() -> None:
    with pytest.raises(
        DataError, match="20 units; 3 sites of at least 8 units need 24"
    ):
        split.dirichlet(dataset(20), 3, 0.5, 0)


def test_a_column_makes_sites_and_keeps_units_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = dataset(9)
    moved = Record("extra", Path("e.png"), (), "u0", "a", {"source": "z"})
    crossing = Dataset("table", "", "patient", (*data.records, moved))
    sites = split.by_column(crossing, "source")
    assert sites == split.by_column(data, "source")
    assert "u0" in sites["x"]
    assert "1 of 9 units" in caplog.text


def test_a_missing_column_is_named_with_what_there_is() -> None:
    with pytest.raises(DataError, match="no 'centre'; its facts are source"):
        split.by_column(dataset(3), "centre")


def test_a_dataset_is_cut_to_units_and_keeps_its_order() -> None:
    part = dataset(5).only({"u3", "u1"})
    assert [record.id for record in part.records] == ["1-0", "1-1", "3-0", "3-1"]
    assert part.units == ("u1", "u3")


def test_heldout_units_stay_when_other_units_come() -> None:
    units = [f"u{number}" for number in range(200)]
    held = split.heldout(units, 0.2, 5)
    assert len(held) == 40
    assert held == split.heldout(reversed(units), 0.2, 5)
    assert held != split.heldout(units, 0.2, 6)
    more = split.heldout([*units, "new"], 0.2, 5)
    assert len(held - more) <= 1


def test_heldout_is_never_empty_and_never_all() -> None:
    assert len(split.heldout(["a", "b"], 0.05, 0)) == 1
    assert len(split.heldout(["a", "b"], 0.99, 0)) == 1
    with pytest.raises(DataError, match="at least 2"):
        split.heldout(["a"], 0.2, 0)


def test_sites_that_share_bytes_or_an_id_are_refused(tmp_path: Path) -> None:
    one = stored(tmp_path, "one", b"same")
    copy = stored(tmp_path, "copy", b"same")
    alike = stored(tmp_path, "alike", b"size")
    renamed = stored(tmp_path, "renamed", b"other", label="one")
    split.check_disjoint({"north": [one, copy], "south": [alike]})
    with pytest.raises(DataError, match=r"north and south .* content: .*one.* .*copy"):
        split.check_disjoint({"north": [one], "south": [copy]})
    with pytest.raises(DataError, match="north and south share an image by id"):
        split.check_disjoint({"north": [one], "south": [renamed]})


def test_a_site_smaller_than_a_batch_is_refused() -> None:
    split.check_enough(16, 16, "north")
    with pytest.raises(DataError, match=r"site north has 15 units .* batch of 16"):
        split.check_enough(15, 16, "north")
