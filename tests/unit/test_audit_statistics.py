"""What attacks prove: right on average, and never more than promised too often."""

import math

import numpy as np
import pytest
from scipy import stats

from vgmedgen.audit import statistics

RNG_SEED = 3


def test_the_binomial_and_its_exact_interval_are_scipys():
    for count, chance in ((1, 0.5), (17, 0.03), (900, 0.7)):
        assert statistics.binomial(count, chance) == pytest.approx(
            stats.binom.pmf(np.arange(count + 1), count, chance), abs=1e-12
        )
    for hits, count in ((0, 10), (3, 10), (10, 10), (37, 400)):
        ours = statistics.share(hits, count)
        theirs = stats.binomtest(hits, count).proportion_ci(method="exact")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_auc_is_the_mann_whitney_statistic_with_ties():
    rng = np.random.default_rng(RNG_SEED)
    members, others = rng.integers(0, 9, 50) + 1.0, rng.integers(0, 9, 70) * 1.0
    u = stats.mannwhitneyu(members, others).statistic
    assert statistics.auc(members, others) == pytest.approx(u / (50 * 70))


def test_the_true_rate_spends_no_more_than_the_false_rate():
    rng = np.random.default_rng(RNG_SEED)
    members, others = rng.normal(2, 1, 4000), rng.normal(0, 1, 4000)
    expected = stats.norm.sf(stats.norm.isf(0.01) - 2)
    assert statistics.true_rate(members, others) == pytest.approx(expected, abs=0.03)
    assert statistics.true_rate(np.zeros(20), np.zeros(20)) == 0


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(RNG_SEED)
    truth = stats.norm.cdf(1 / math.sqrt(2))
    inside = 0
    for trial in range(60):
        found = statistics.bootstrap(
            statistics.auc,
            rng.normal(1, 1, 60),
            rng.normal(0, 1, 60),
            draws=200,
            seed=trial,
        )
        inside += found.low <= truth <= found.high
    assert inside >= 50


def guesses_of_randomised_response(rng, total: int, epsilon: float) -> int:
    """Correct guesses where every coin is told with the odds that epsilon allows."""
    return int(rng.binomial(total, 1 / (1 + math.exp(-epsilon))))


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 3.0])
def test_a_mechanism_of_known_epsilon_is_rarely_found_above_it(epsilon):
    rng = np.random.default_rng(RNG_SEED)
    trials, total, confidence = 400, 200, 0.9
    above = 0
    for _ in range(trials):
        correct = guesses_of_randomised_response(rng, total, epsilon)
        bound = statistics.one_run_bound(total, correct, total, 0.0, confidence)
        above += bound > epsilon
    # 10 % are allowed; more than that by chance alone has odds below one in a thousand
    assert above <= stats.binom.isf(1e-3, trials, 1 - confidence)


def test_choosing_how_many_to_guess_does_not_break_the_promise():
    rng = np.random.default_rng(RNG_SEED)
    above = 0
    for _ in range(300):
        included = rng.random(100) < 0.5
        found = statistics.best_one_run(
            rng.normal(size=100), included, delta=1e-5, confidence=0.9
        )
        above += found.epsilon > 0
    assert above <= stats.binom.isf(1e-3, 300, 0.1)


def test_the_one_run_bound_comes_near_a_strong_mechanism_and_pays_for_delta():
    bound = statistics.one_run_bound(2000, 1762, 2000, 0.0)  # epsilon 2 on average
    assert 1.8 < bound < 2.0
    assert statistics.one_run_bound(2000, 1762, 2000, 1e-5) < bound
    assert statistics.one_run_bound(100, 50, 100, 1e-5) == 0
    assert statistics.one_run_bound(0, 0, 100, 1e-5) == 0
    with pytest.raises(ValueError, match="correct <= guesses"):
        statistics.one_run_bound(10, 11, 20, 1e-5)


def test_the_bound_rises_with_correct_guesses_and_falls_with_confidence():
    bounds = [statistics.one_run_bound(80, k, 100, 1e-5) for k in range(40, 81, 5)]
    assert bounds == sorted(bounds)
    assert bounds[-1] > 2
    strict = statistics.one_run_bound(80, 75, 100, 1e-5, 0.999)
    assert strict < statistics.one_run_bound(80, 75, 100, 1e-5, 0.9)


def test_rates_prove_nothing_of_noise_and_much_of_a_clear_leak():
    rng = np.random.default_rng(RNG_SEED)
    false = sum(
        statistics.rates_bound(rng.normal(size=80), rng.normal(size=80), delta=1e-5) > 0
        for _ in range(200)
    )
    assert false <= stats.binom.isf(1e-3, 200, 0.05)
    clear = statistics.rates_bound(np.ones(300), np.zeros(300), delta=1e-5)
    assert clear > 3
    reverse = statistics.rates_bound(
        rng.normal(size=400), np.r_[np.full(200, -9.0), rng.normal(size=200)], delta=0
    )
    assert reverse > 1  # non-members that are surely none count as well


def test_the_chance_of_an_excess_is_beta_binomial():
    for flagged, drawn, rank, reference in ((1, 20, 1, 40), (5, 100, 2, 150)):
        expected = stats.betabinom.sf(flagged - 1, drawn, rank, reference + 1 - rank)
        found = statistics.excess_chance(flagged, drawn, rank, reference)
        assert found == pytest.approx(expected)
    assert statistics.excess_chance(0, 10, 1, 30) == pytest.approx(1)
