"""How the gate decides how unusual is too unusual, and what that promises."""

import numpy as np
import pytest
from scipy import stats

from vgmedgen.errors import ConfigError
from vgmedgen.gate import statistics
from vgmedgen.gate.calibration import (
    FEWEST,
    FIT,
    RANK,
    Calibration,
    Tails,
    least_rate,
)

USUAL = 100  # images that the tails are fitted to
TRIALS = 400
FURTHER = 300  # images that are judged in each


def values(count: int, seed: int = 0) -> np.ndarray:
    """Three detectors of different measure, with the tails of images that are no copies."""
    rng = np.random.default_rng(seed)
    spread = rng.exponential(size=(count, 3)) * [1.0, 0.05, 0.1]
    return spread + np.array([5.0, 0.6, -1.0])


def calibrated(scores: np.ndarray, rate: float, units=None) -> Calibration:
    names = map(str, range(len(scores)) if units is None else units)
    return Calibration.of(scores, list(names), rate)


SHAPES = {
    "exponential": lambda rng, n: rng.exponential(size=(n, 3)),
    "normal": lambda rng, n: rng.normal(size=(n, 3)),
    "without a mean": lambda rng, n: rng.standard_cauchy((n, 3)),
    "bounded": lambda rng, n: rng.random((n, 3)),
    "in coarse steps": lambda rng, n: rng.integers(0, 6, (n, 3)).astype(float),
    "two kinds of images": lambda rng, n: (
        rng.normal(size=(n, 3)) + 8 * (rng.random((n, 1)) < 0.03)
    ),
    "detectors that agree": lambda rng, n: np.repeat(rng.lognormal(size=(n, 1)), 3, 1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("count", "rate"), [(25, 0.01), (60, 0.05), (99, 0.01), (299, 0.01)]
)
def test_whatever_the_distribution_no_more_are_held_back_than_promised(
    shape, count, rate
):
    """Tails and threshold are drawn anew each time, and further images judged."""
    rng = np.random.default_rng([count, *shape.encode()])
    shares = []
    for _ in range(TRIALS):
        drawn = SHAPES[shape](rng, USUAL + count + FURTHER)
        scores = Tails.of(drawn[:USUAL]).scores(drawn[USUAL:])
        found = calibrated(scores[:count], rate)
        shares.append((scores[count:] > found.threshold).mean())
    promised = max(rate, 1 / (count + 1))
    assert found.promised == promised
    assert np.mean(shares) <= promised + 3 * np.std(shares) / np.sqrt(TRIALS)


def test_a_measure_fitted_to_the_held_out_images_themselves_would_break_the_promise():
    """The test above has power: it sees what a measure costs that knows these images."""
    rng = np.random.default_rng(0)
    count, rate, shares = 60, 0.05, []
    for _ in range(TRIALS):
        drawn = rng.normal(size=(count + FURTHER, 3))
        scores = Tails.of(drawn[:count]).scores(drawn)
        threshold = calibrated(scores[:count], rate).threshold
        shares.append((scores[count:] > threshold).mean())
    assert np.mean(shares) > rate + 3 * np.std(shares) / np.sqrt(TRIALS)


def units_drawn(rng, count):
    """Scores and unit names: a third of the units are usual, with twelve images each."""
    large = rng.random(count) < 1 / 3
    level = rng.exponential(np.where(large, 0.2, 2.0))
    units = np.repeat(np.arange(count), np.where(large, 12, 1))
    return level[units] + rng.normal(0, 1e-3, len(units)), units


@pytest.mark.parametrize(("count", "rate"), [(60, 0.05), (99, 0.01)])
def test_a_unit_of_many_images_weighs_no_more_than_one_of_a_single_image(count, rate):
    rng = np.random.default_rng(count)
    shares, counted = [], []
    for _ in range(TRIALS):
        scores, units = units_drawn(rng, count)
        drawn, whose = units_drawn(rng, FURTHER)
        new = drawn[np.unique(whose, return_index=True)[1]]
        shares.append((new > calibrated(scores, rate, units).threshold).mean())
        each_a_unit = calibrated(scores, rate)
        counted.append((new > each_a_unit.threshold).mean())
    assert np.mean(shares) <= rate + 3 * np.std(shares) / np.sqrt(TRIALS)
    # counting images would have broken the promise
    assert np.mean(counted) > rate + 3 * np.std(counted) / np.sqrt(TRIALS)


@pytest.mark.parametrize("count", [24, 25, 60, 99, 150, 400])
def test_the_threshold_falls_as_the_rate_rises(count):
    rates = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2]
    scores = Tails.of(values(USUAL, 1)).scores(values(count))
    found = [calibrated(scores, rate).threshold for rate in rates]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


@pytest.mark.parametrize(
    ("count", "rate"), [(25, 0.01), (40, 0.01), (120, 0.01), (199, 0.05)]
)
def test_where_tails_are_exponential_few_images_keep_even_to_what_is_asked_for(
    count, rate
):
    shares = []
    for seed in range(150):
        drawn = values(USUAL + count + 200, seed)
        tails = Tails.of(drawn[:USUAL])
        found = calibrated(tails.scores(drawn[USUAL : USUAL + count]), rate)
        rest = tails.scores(drawn[USUAL + count :])
        shares.append((rest > found.threshold).mean())
    error = 3 * np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) < rate + error
    assert np.mean(shares) > 0  # it does not hold by holding nothing back


def test_few_units_read_the_threshold_off_a_tail_and_many_off_a_rank():
    few, many = (-np.log((np.arange(n) + 0.5) / n) for n in (40, 400))
    assert calibrated(few, 0.01).method == FIT
    assert calibrated(many, 0.01).method == RANK
    assert calibrated(many, 0.01).threshold == many[3]


def test_a_rank_of_few_images_never_lies_below_their_tail():
    scores = values(120)[:, 0]
    few = calibrated(scores, 0.01)
    assert few.threshold >= scores.max()
    assert few.threshold > calibrated(scores, 0.05).threshold


def test_a_tail_below_the_rank_does_not_lower_the_threshold():
    scores = np.zeros(50)
    scores[:2] = 100.0, 90.0
    found = calibrated(scores, 0.01)
    assert (found.threshold, found.method) == (100.0, RANK)


def test_so_many_units_promise_one_in_as_many_and_one():
    assert least_rate(25) == 1 / 26
    assert calibrated(values(25)[:, 0], 0.01).promised == 1 / 26
    assert calibrated(values(25)[:, 0], 0.05).promised == 0.05
    one_image_each_of_few = calibrated(values(40)[:, 0], 0.01, np.arange(40) // 2)
    assert one_image_each_of_few.promised == 1 / 21


def test_one_odd_image_does_not_move_the_measure():
    usual = values(100)
    odd = usual.copy()
    odd[17] += [500.0, 50.0, 50.0]
    one, other = Tails.of(usual), Tails.of(odd)
    assert np.allclose(one.centre, other.centre, rtol=0.05)
    assert np.allclose(one.scale, other.scale, rtol=0.15)


def test_a_detector_that_cannot_tell_images_apart_does_not_drown_the_others():
    """Hashes come in steps: where most images agree alike, one bit is no news."""
    told = values(80)
    told[:, 1] = 0.75
    told[3, 1] += 1 / 64
    tails = Tails.of(told[:40])
    copy = np.array([[12.0, 0.75, -1.0]])
    threshold = calibrated(tails.scores(told[40:]), 0.05).threshold
    assert tails.scores(copy)[0] > threshold


def test_too_few_held_out_scores_are_refused_with_what_is_needed():
    with pytest.raises(
        ConfigError, match=f"needs {FEWEST}.* has {FEWEST - 1}"
    ) as refused:
        calibrated(values(FEWEST - 1)[:, 0], 0.01)
    assert "\n" not in str(refused.value)


def test_too_few_training_images_without_a_twin_are_refused():
    with pytest.raises(ConfigError, match=f"only {FEWEST - 1} .*data twins") as refused:
        Tails.of(values(FEWEST - 1))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("rank", "count"), [(1, 25), (1, 99), (4, 400), (30, 299)])
def test_the_likely_rate_is_the_beta_distributions(rank, count):
    found = statistics.rate_beyond(rank, count)
    wanted = stats.beta(rank, count + 1 - rank)
    assert found.value == pytest.approx(wanted.mean())
    assert found.low == pytest.approx(wanted.ppf(0.025), abs=1e-9)
    assert found.high == pytest.approx(wanted.ppf(0.975), abs=1e-9)
