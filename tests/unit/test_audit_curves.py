"""What one run rules out of a privacy curve: never too much, and more than one epsilon."""

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from scipy import optimize, stats

from vgmedgen.audit import curves, statistics
from vgmedgen.audit.curves import Curve
from vgmedgen.privacy.accountant import Mechanism, profile, spent

DELTA = 1e-5
ONCE = Mechanism(noise=1.0, rate=1.0, steps=1)
SAMPLED = Mechanism(noise=2.0, rate=0.25, steps=40)


def test_the_curve_is_googles_or_a_little_above_it():
    epsilons = np.array([0.0, 0.3, 1.0, 2.0, 4.0])
    theirs = privacy_loss_distribution.from_gaussian_mechanism(
        2.0, sampling_prob=0.25, value_discretization_interval=1e-4
    ).self_compose(40)
    expected = np.array([theirs.get_delta_for_epsilon(e) for e in epsilons])
    found = profile([SAMPLED], epsilons)
    assert (found >= 0.999 * expected).all()
    assert found == pytest.approx(expected, rel=0.06, abs=2e-8)


def test_a_gaussians_curve_gives_its_exact_trade_off():
    curve = Curve.of(ONCE)
    for seen in (0.02, 0.3, 0.7, 0.95):
        exact = stats.norm.cdf(stats.norm.ppf(seen) - 1)
        assert curve.least(seen) <= exact + 1e-9
        assert curve.least(seen) == pytest.approx(exact, rel=0.12, abs=2e-3)


def most(curve: Curve, guesses: int, correct: int, total: int) -> float:
    """The largest chance of so many correct guesses that the theorem leaves, by an LP."""
    count = np.arange(guesses + 1)
    rise = np.exp(curve.epsilons)
    lines = [*zip(rise, curve.deltas, strict=True)]
    lines += [(1 / e, 1 - (1 - d) / e) for e, d in zip(rise, curve.deltas, strict=True)]
    rows, limits = [], []
    for least in range(1, guesses + 1):
        right = np.where(count >= least, count, 0) / total
        wrong = np.where(count >= least - 1, guesses - count, 0) / total
        for slope, height in lines:
            rows.append(right - slope * wrong)
            limits.append(height)
    found = optimize.linprog(
        -(count >= correct).astype(float),
        A_ub=np.array(rows),
        b_ub=np.array(limits),
        A_eq=np.ones((1, guesses + 1)),
        b_eq=[1.0],
        method="highs",
    )
    return -float(found.fun)


@pytest.mark.parametrize(("guesses", "correct"), [(12, 12), (12, 10), (20, 17)])
def test_what_is_ruled_out_is_what_a_linear_programme_leaves_no_room_for(
    guesses, correct
):
    curve = Curve(
        *(part[::8] for part in (Curve.of(ONCE).epsilons, Curve.of(ONCE).deltas))
    )
    limit = most(curve, guesses, correct, 24)
    assert not curves.ruled_out(curve, guesses, correct, 24, 0.98 * limit)
    assert curves.ruled_out(curve, guesses, correct, 24, min(1.0, 1.02 * limit))


def run_of(rng, mechanism: Mechanism, total: int) -> tuple[np.ndarray, np.ndarray]:
    """The best attack on one run: each canary's own direction, over all steps."""
    included = rng.random(total) < 0.5
    joins = (rng.random((mechanism.steps, total)) < mechanism.rate) & included
    noise = mechanism.noise * rng.normal(size=joins.shape)
    return (joins + noise).sum(0), included


@pytest.mark.parametrize("mechanism", [ONCE, SAMPLED])
def test_an_engine_as_planned_is_rarely_found_above_what_it_costs(mechanism):
    rng = np.random.default_rng(0)
    cost, trials, confidence = spent([mechanism], DELTA).epsilon, 60, 0.9
    bounds = [
        curves.best(
            *run_of(rng, mechanism, 100), mechanism, delta=DELTA, confidence=confidence
        ).epsilon
        for _ in range(trials)
    ]
    above = sum(bound > cost for bound in bounds)
    assert above <= stats.binom.isf(1e-4, trials, 1 - confidence)
    assert np.mean(bounds) > 0  # it is a bound that can prove something


def test_a_curve_proves_more_than_one_epsilon_does():
    rng = np.random.default_rng(1)
    quiet = Mechanism(noise=0.25, rate=1.0, steps=1)
    scores, included = run_of(rng, quiet, 256)
    asked = {"delta": DELTA, "confidence": 0.95}
    plain = statistics.best_one_run(scores, included, **asked).epsilon
    tight = curves.best(scores, included, ONCE, **asked).epsilon
    assert plain < 1.5 * plain < tight
    assert tight >= spent([ONCE], DELTA).epsilon  # the plan's noise is ruled out
    assert tight <= spent([quiet], DELTA).epsilon


def test_the_ceiling_is_what_perfect_guesses_prove():
    assert statistics.highest(48, delta=DELTA) == pytest.approx(
        statistics.one_run_bound(48, 48, 48, DELTA, 0.99)
    )
    perfect = np.arange(48) >= 24
    asked = {"delta": DELTA, "confidence": 0.95}
    limit = curves.ceiling(48, ONCE, **asked)
    found = curves.best(perfect.astype(float), perfect, ONCE, **asked)
    assert found.epsilon == limit
    assert limit > statistics.highest(48, delta=DELTA)
    assert curves.ceiling(128, ONCE, **asked) > limit
