"""Agreement between sites: blind to shift and scale, not to rotation."""

import math

import pytest
import torch

from vgmedgen.evaluation.alignment import agreement, centred_cosine, mapper_agreement
from vgmedgen.training.loop import generator_of


def vectors(seed: int, count: int = 400, width: int = 32) -> torch.Tensor:
    return torch.randn(count, width, generator=generator_of(seed))


def test_equal_vectors_agree_fully_and_opposite_ones_not_at_all():
    one = vectors(0)
    assert centred_cosine(one, one) == pytest.approx(1)
    assert centred_cosine(one, -one) == pytest.approx(-1)


def test_independent_vectors_agree_by_chance_only():
    assert abs(centred_cosine(vectors(0), vectors(1))) < 0.03


def test_a_common_part_of_all_vectors_does_not_count():
    assert abs(centred_cosine(vectors(0) + 50, vectors(1) + 50)) < 0.03


def test_shift_and_positive_scale_change_nothing():
    one, two = vectors(0), vectors(0) + vectors(1)
    plain = centred_cosine(one, two)
    assert centred_cosine(3 * one + 7, 0.1 * two - 2) == pytest.approx(plain, abs=1e-5)
    assert 0.5 < plain < 0.9


def test_a_rotation_is_seen():
    rotation, _ = torch.linalg.qr(vectors(2, 32, 32))
    assert abs(centred_cosine(vectors(0), vectors(0) @ rotation)) < 0.3


def test_sets_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        centred_cosine(vectors(0), vectors(0, count=3))


def test_agreement_is_the_mean_over_pairs_of_sites():
    one, two = vectors(0), vectors(1)
    found = agreement({"a": one, "b": one, "c": two})
    expected = (1 + 2 * centred_cosine(one, two)) / 3
    assert found == pytest.approx(expected)


def test_mapper_agreement_is_the_mean_over_sites():
    one, two = vectors(0), vectors(1)
    found = mapper_agreement(one, {"a": one, "b": two})
    assert found == pytest.approx((1 + centred_cosine(one, two)) / 2)


def test_too_few_sites_give_no_number():
    assert math.isnan(agreement({"a": vectors(0)}))
    assert math.isnan(mapper_agreement(vectors(0), {}))
