"""Chances that an honest engine may be judged by: never too small, and small where due."""

import numpy as np
import pytest
import torch
from scipy import stats

from vgmedgen.audit import chances, hiding, joining
from vgmedgen.audit.chances import Chance
from vgmedgen.audit.recorded import FALSE_ALARM
from vgmedgen.audit.recording import KEPT, Recording, Step, Terms

UNITS, RATE, STEPS, SIZES = 24, 0.25, 40, (300, 64, 8, 300)
SEEDS = 400
TERMS = Terms("mapper", STEPS, RATE, UNITS, 0.2, 3.0, 1e-3, 0.0, 1)


def test_tails_are_scipys():
    assert chances.normal([0.5, -6.0]) == pytest.approx(2 * stats.norm.sf([0.5, 6.0]))
    for total, count in ((3.0, 8), (9.3e4, 1e5), (1.05e5, 1e5)):
        law = stats.chi2(count)
        expected = 2 * min(law.cdf(total), law.sf(total))
        assert chances.squares(total, count) == pytest.approx(expected, rel=1e-6)
    for hits in (0, 3, 30, 60):
        law = stats.binom(60, RATE)
        expected = min(1.0, 2 * min(law.cdf(hits), law.sf(hits - 1)))
        assert chances.counts(hits, 60, RATE) == pytest.approx(expected)


def test_bounds_lie_above_what_they_bound_and_not_far():
    for n, r in ((20, 0.5), (300, 0.3)):
        # the squared cosine of a Gaussian vector and any other is beta distributed
        exact = stats.beta(0.5, (n - 1) / 2).sf(r * r)
        assert exact <= chances.cosines(r, n) <= 40 * exact
    rows = np.random.default_rng(0).normal(size=(1, 500)) + 0.1
    exact = stats.kstest(rows[0], "norm").pvalue
    assert exact <= chances.shape(rows)[0] <= 3 * exact + 1e-9
    alike = [6] * 20  # every step has the same number of units
    exact = stats.binom(UNITS, RATE).pmf(6) ** 20
    assert exact <= chances.spread(alike, UNITS, RATE) <= 3 * exact


def test_what_is_no_number_is_never_likely():
    nan = float("nan")
    assert chances.squares(nan, 10) == 0
    assert chances.normal(nan) == 0
    assert chances.cosines(nan, 100) == 0
    assert chances.shape([[nan, 0.0]]) == 0


def test_a_rate_of_one_has_nothing_to_ask():
    everybody = np.ones((STEPS, UNITS), dtype=bool)
    assert all(one.value == 1 for one in joining.questions(everybody, 1.0))


def recording(rng: np.random.Generator) -> Recording:
    """What an honest engine's noise would leave."""
    made = Recording(TERMS, 1, tuple("abcd"), SIZES)
    drawn = torch.from_numpy(rng.normal(size=(STEPS, sum(SIZES))))
    for z in drawn:
        parts = torch.split(z, list(SIZES))
        made.steps.append(
            Step(
                rows=(),
                shown=True,
                squares=torch.stack([part.square().sum() for part in parts]),
                sums=torch.stack([part.sum() for part in parts]),
                kept=torch.cat([part[:KEPT] for part in parts]).float(),
                along=float(rng.normal()),
                off=0.0,
                added=0.0,
                divided=(6.0, 6.0),
                drift=0.0,
            )
        )
    made.totals = torch.stack([drawn.sum(0), drawn.square().sum(0)]).float()
    return made


def asked(rng: np.random.Generator) -> list[Chance]:
    """All questions of one training, honestly answered."""
    table, other = (rng.random((STEPS, UNITS)) < RATE for _ in range(2))
    noise, again = [recording(rng)], [recording(rng)]
    return [
        *joining.questions(table, RATE),
        joining.between(table, other, RATE),
        *hiding.sizes(noise),
        *hiding.reuse(noise),
        hiding.between(noise, again),
    ]


def test_over_many_seeds_no_question_alarms_more_often_than_its_chance():
    answers = [
        {one.question: one.value for one in asked(np.random.default_rng(seed))}
        for seed in range(SEEDS)
    ]
    for question in answers[0]:
        values = np.array([one[question] for one in answers])
        for level in (0.2, 0.05, 0.01):
            alarms = int((values <= level).sum())
            # so many more than promised have odds below one in a million
            assert alarms <= stats.binom.isf(1e-6, SEEDS, level), (question, level)
    # and all of them together stay far from what turns the audit red
    assert min(min(one.values()) for one in answers) > FALSE_ALARM / len(answers[0])


@pytest.mark.parametrize("factor", [0.96, 1.04])
def test_four_per_cent_of_the_noise_are_seen_in_sixty_thousand_values(factor):
    rng = np.random.default_rng(0)
    values = factor * rng.normal(size=(90, 672))
    assert chances.squares((values**2).sum(), values.size) < FALSE_ALARM / 100
