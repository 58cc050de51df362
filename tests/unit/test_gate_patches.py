"""Patches: a copy that is framed otherwise is found by the parts that it has in common."""

import numpy as np
import pytest
import torch

from tests.altered import altered
from tests.clouds import SIDE, greys, texture
from tests.planted import KINDS, copied
from vgmedgen.gate.local import NEXT, SAME, Patches
from vgmedgen.gate.patches import cleaned, described, edges, middles, turned_edges
from vgmedgen.gate.whitening import turned

COUNT = 40
FRAMED = (
    "crop 80 %",
    "crop 70 %",
    "patch of half the side",
    "padded to 125 %",
    "stretched 1:1.25",
    "rotated by 10 degrees",
    "sheared by 15 %",
    "elastic warp, 1/16",
    "salt noise 5 %",
    "mirror+crop 80 %+10 degrees",
)


@pytest.fixture(scope="module")
def known() -> list[np.ndarray]:
    return [texture(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def patches(known) -> Patches:
    return Patches(greys(known), [f"unit-{row}" for row in range(COUNT)])


@pytest.fixture(scope="module")
def usual(patches) -> float:
    """The highest standing of pictures that copy nothing."""
    others = greys([texture(seed) for seed in range(900, 920)])
    return max(patches.search(one).standing for one in others)


@pytest.mark.parametrize("kind", FRAMED)
def test_a_copy_framed_or_bent_otherwise_stands_out_and_the_right_one_is_named(
    patches, known, usual, kind
):
    rng = np.random.default_rng(1)
    made = [altered(kind, known[row], known[row + 1], rng) for row in range(8)]
    found = [patches.search(one) for one in greys(made)]
    named = [one.row == row for row, one in enumerate(found)]
    assert sum(named) >= 7
    assert sum(one.standing > usual for one in found) >= 7


@pytest.mark.parametrize("kind", KINDS)
def test_copies_framed_as_they_were_are_found_as_well(patches, known, kind):
    made = [copied(kind, known[row], np.random.default_rng(row)) for row in range(3)]
    found = [patches.search(one) for one in greys(made)]
    assert [one.row for one in found] == [0, 1, 2]
    assert min(one.standing for one in found) > SAME


def test_pictures_that_copy_nothing_are_far_from_being_called_the_same(usual):
    assert usual < SAME / 2


def test_a_unit_that_is_left_out_is_not_found(patches, known):
    found = patches.search(greys(known[5:6])[0], without=("unit-5",))
    assert found.row != 5
    assert found.standing < SAME


def test_images_of_one_unit_do_not_hide_each_other(known):
    """A unit has more images than units are passed over, all of one picture."""
    rng = np.random.default_rng(0)
    series = [copied("noise 5", known[0], rng) for _ in range(NEXT + 4)]
    units = ["one"] * len(series) + [f"unit-{row}" for row in range(1, COUNT)]
    found = Patches(greys(series + known[1:]), units).search(greys(known[:1])[0])
    assert found.row < len(series)
    assert found.standing > SAME


def test_edges_of_turned_pictures_are_turned_edges(known):
    picture = greys(known[:1])
    wanted = edges(turned(picture[0]))
    assert torch.allclose(turned_edges(edges(picture)[0]), wanted, atol=1e-4)


def test_a_description_does_not_know_brightness_and_hardly_contrast(known):
    picture, places = greys(known[:1]), middles(SIDE, 5)
    plain = described(edges(picture), places)
    for seen in (picture + 40, picture * 1.3):
        assert (described(edges(seen), places) * plain).sum(-1).min() > 0.99


def test_lone_pixels_are_cleaned_away():
    picture = torch.full((1, 9, 9), 100.0)
    picture[0, 4, 4] = picture[0, 0, 8] = 255
    assert (cleaned(picture) == 100).all()


@pytest.mark.parametrize("level", [0.0, 128.0, 255.0])
def test_a_flat_picture_has_a_finite_standing_and_is_no_copy(patches, level):
    found = patches.search(torch.full((SIDE, SIDE), level))
    assert np.isfinite(found.standing)
    assert found.standing < SAME


def test_a_site_of_flat_pictures_gives_finite_standings():
    flat = torch.stack([torch.full((SIDE, SIDE), float(k)) for k in range(30)])
    found = Patches(flat, [str(k) for k in range(30)]).search(flat[3])
    assert np.isfinite(found.standing)
