"""What the release gate looks with, and the statistics of what it finds."""

import numpy as np
import pytest
import torch
from scipy import stats

from tests.clouds import SIDE, greys, texture
from tests.planted import copied
from vgmedgen.gate import statistics
from vgmedgen.gate.hashes import Hashes, hashes
from vgmedgen.gate.structure import SAME, Structures
from vgmedgen.gate.whitening import TURNS, turned

COUNT = 60
ALL = torch.ones(COUNT, dtype=torch.bool)  # all are looked at


@pytest.fixture(scope="module")
def known() -> list[np.ndarray]:
    return [texture(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def structures(known) -> Structures:
    return Structures(greys(known), [f"unit-{row}" for row in range(COUNT)])


def test_structure_finds_a_hard_copy_and_sets_it_apart_from_all_others(
    structures, known
):
    rng = np.random.default_rng(1)
    hard = [copied("mirror+crop+JPEG", known[row], rng) for row in range(8)]
    found = [structures.search(one) for one in greys(hard)]
    others = [
        structures.search(one) for one in greys([texture(s) for s in range(900, 908)])
    ]
    assert [one.row for one in found] == list(range(8))
    assert min(one.standing for one in found) > SAME
    assert max(one.standing for one in others) < SAME
    assert min(one.alike for one in found) > max(one.alike for one in others)


def test_structure_is_blind_to_brightness_and_contrast(structures, known):
    plain = greys(known[3:4])[0]
    for seen in (plain * 0.5 + 90, plain * 0.8, plain + 30):
        found = structures.search(seen)
        assert found.row == 3
        assert found.alike > 0.98


def test_a_negative_of_a_picture_is_no_copy_to_the_structure(structures, known):
    """The gate's claim is about copies; a negative is another picture, and says so here."""
    found = structures.search(255 - greys(known[3:4])[0])
    assert found.standing < SAME


@pytest.mark.parametrize("turn", range(TURNS))
def test_every_turn_is_the_same_picture_to_structure_and_hash(structures, known, turn):
    picture = greys(known[5:6])[0]
    seen = turned(picture)[turn].contiguous()
    assert structures.search(seen).row == 5
    assert Hashes(greys(known)).search(seen, ALL) == (1.0, 5)


def test_images_of_one_unit_do_not_hide_each_other(known):
    """A unit's other pictures are passed over when a copy is set apart from the rest."""
    series = [copied("noise 10", known[0], np.random.default_rng(k)) for k in range(12)]
    pictures = series + known[1:]
    units = ["one"] * len(series) + [f"unit-{row}" for row in range(1, COUNT)]
    found = Structures(greys(pictures), units).search(greys(known[:1])[0])
    assert found.row < len(series)
    assert found.standing > SAME


@pytest.mark.parametrize("level", [0.0, 128.0, 255.0])
def test_a_flat_picture_has_no_structure_to_be_alike_in(structures, level):
    found = structures.search(torch.full((SIDE, SIDE), level))
    assert np.isfinite(found.standing)
    assert found.standing < 1
    assert torch.equal(
        hashes(torch.full((1, SIDE, SIDE), level)), torch.full((1, 64), -1.0)
    )


def test_a_site_of_flat_pictures_gives_finite_standings():
    flat = torch.stack([torch.full((SIDE, SIDE), float(k)) for k in range(30)])
    found = Structures(flat, [str(k) for k in range(30)]).search(flat[3])
    assert np.isfinite(found.standing)


def test_hashes_of_a_jpeg_agree_and_hashes_of_others_do_not(known):
    jpeg = copied("JPEG 50", known[7], np.random.default_rng(0))
    agreement, row = Hashes(greys(known)).search(greys([jpeg])[0], ALL)
    assert row == 7
    assert agreement > 0.9
    assert Hashes(greys(known)).search(greys([texture(77)])[0], ALL)[0] < 0.9


def test_a_unit_that_is_left_out_is_not_found_by_its_hash(known):
    among = ALL.clone()
    among[5] = False
    agreement, row = Hashes(greys(known)).search(greys(known[5:6])[0], among)
    assert row != 5
    assert agreement < 1


CASES = [(0, 10), (1, 10), (5, 10), (10, 10), (3, 366), (39, 155), (0, 1), (1, 1)]


@pytest.mark.parametrize(("hits", "count"), CASES)
def test_intervals_are_those_of_clopper_and_pearson(hits, count):
    found = statistics.share(hits, count)
    wanted = stats.binomtest(hits, count).proportion_ci(0.95, method="exact")
    assert found.value == hits / count
    assert found.low == pytest.approx(wanted.low, abs=1e-9)
    assert found.high == pytest.approx(wanted.high, abs=1e-9)


@pytest.mark.parametrize(("hits", "count"), CASES)
@pytest.mark.parametrize("chance", [0.01, 0.5, 0.74, 0.99])
def test_binomial_tests_are_scipys(hits, count, chance):
    wanted = stats.binomtest(hits, count, chance, alternative="greater").pvalue
    assert statistics.as_many(hits, count, chance) == pytest.approx(wanted, abs=1e-9)


def test_the_chance_of_many_below_a_rank_is_the_beta_binomials():
    wanted = stats.betabinom(50, 3, 98).sf(5 - 1)
    assert statistics.excess_chance(5, 50, 3, 100) == pytest.approx(wanted, rel=1e-9)
