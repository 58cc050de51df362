"""What the outcome of an attack proves, with its confidence. Pure functions of numbers.

Scores are higher for what an attack takes for a member. One score is one unit: images of
one unit are averaged before they come here, so that units are resampled, never images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vgmedgen.gate.statistics import (
    HALVINGS,
    Interval,
    binomial,
    excess_chance,
    share,
    share_below,
)

__all__ = [
    "Interval",
    "OneRun",
    "Scores",
    "auc",
    "best_one_run",
    "binomial",
    "bootstrap",
    "excess_chance",
    "guessed",
    "highest",
    "one_run_bound",
    "one_run_chance",
    "rates_bound",
    "share",
    "share_below",
    "true_rate",
]

Scores = NDArray[np.float64]

FALSE_RATE = 0.01  # false positive rate at which attacks are compared
SHARES = (0.05, 0.125, 0.25, 0.5, 1.0)  # of the canaries, that are guessed at
MOST_EPSILON = 64.0  # beyond it no count of guesses leads


@dataclass(frozen=True, kw_only=True)
class OneRun:
    """What the guesses of a one-run audit prove."""

    epsilon: float  # lower bound
    guesses: int
    correct: int
    total: int  # canaries, each included with probability 1/2


def auc(members: Scores, others: Scores) -> float:
    """Chance that a member scores above a non-member; ties count half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, side="left")
    upto = np.searchsorted(ordered, members, side="right")
    return float((below + upto).mean() / (2 * len(others)))


def true_rate(members: Scores, others: Scores, false_rate: float = FALSE_RATE) -> float:
    """Share of members found where at most `false_rate` of the others are taken for one."""
    allowed = math.floor(false_rate * len(others))
    threshold = np.sort(others)[::-1][allowed]
    return float((members > threshold).mean())


def bootstrap(
    statistic: Callable[[Scores, Scores], float],
    members: Scores,
    others: Scores,
    *,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of `statistic` over resampled units."""
    rng = np.random.default_rng(seed)
    found = [
        statistic(
            rng.choice(members, len(members)),
            rng.choice(others, len(others)),
        )
        for _ in range(draws)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(value=statistic(members, others), low=float(low), high=float(high))


def rates_bound(
    members: Scores, others: Scores, *, delta: float, confidence: float = 0.95
) -> float:
    """Lower bound of epsilon from true and false positive rates.

    (epsilon, delta)-DP demands TPR <= exp(epsilon) FPR + delta, and the same with
    members and others exchanged (Kairouz, Oh and Viswanath 2015, arXiv 1311.0776). The
    thresholds are shares of all scores together and the confidence is divided among
    them, so none is chosen for what it happens to give.
    """
    pooled = np.sort(np.concatenate([members, others]))
    tail = (1 - confidence) / (2 * 2 * len(SHARES))  # two sides, two rates
    best = 0.0
    for part in SHARES[:-1]:
        place = min(len(pooled) - 1, max(0, round(part * len(pooled)) - 1))
        top, bottom = pooled[::-1][place], pooled[place]
        for hit, of, false, out in (
            ((members >= top).sum(), members, (others >= top).sum(), others),
            ((others <= bottom).sum(), others, (members <= bottom).sum(), members),
        ):
            right = share_below(int(hit), len(of), tail)
            wrong = 1 - share_below(len(out) - int(false), len(out), tail)
            if right - delta > wrong > 0:
                best = max(best, math.log((right - delta) / wrong))
    return best


def one_run_bound(
    guesses: int, correct: int, total: int, delta: float, confidence: float = 0.95
) -> float:
    """Largest epsilon that these guesses rule out.

    Each of `total` canaries was included with probability 1/2 by a coin of its own;
    the attack guessed at `guesses` of them and was `correct` that often. Source:
    Steinke, Nasr and Jagielski 2023, arXiv 2305.08846, theorem 5.2.

    Returns:
        0 where even epsilon 0 explains them.
    """
    if not 0 <= correct <= guesses <= total:
        raise ValueError(
            f"expected correct <= guesses <= total, got {correct}, {guesses}, {total}"
        )
    level = 1 - confidence
    if guesses == 0 or one_run_chance(guesses, correct, total, 0.0, delta) > level:
        return 0.0
    low, high = 0.0, MOST_EPSILON
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if one_run_chance(guesses, correct, total, middle, delta) > level:
            high = middle
        else:
            low = middle
    return low


def one_run_chance(
    guesses: int, correct: int, total: int, epsilon: float, delta: float
) -> float:
    """Chance of so many correct guesses, at most, under (epsilon, delta)-DP."""
    mass = binomial(guesses, 1 / (1 + math.exp(-epsilon)))
    tail = mass[correct:].sum()
    # the slack of delta: the largest mean of the probabilities just below `correct`
    below = np.cumsum(mass[:correct][::-1]) / np.arange(1, correct + 1)
    slack = below.max() if correct else 0.0
    return float(min(1.0, tail + 2 * total * delta * slack))


def highest(total: int, *, delta: float, confidence: float = 0.95) -> float:
    """The bound that `best_one_run` would give, were every guess at `total` right."""
    everybody = np.arange(total) >= total // 2
    return best_one_run(
        everybody.astype(np.float64), everybody, delta=delta, confidence=confidence
    ).epsilon


def guessed(
    scores: Scores, included: NDArray[np.bool_], part: float
) -> tuple[int, int]:
    """Guesses at the extremes of a share of `scores`, and how many of them are right."""
    order, total = np.argsort(scores), len(scores)
    half = min(max(1, round(part * total / 2)), total // 2)
    correct = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
    return 2 * half, correct


def best_one_run(
    scores: Scores,
    included: NDArray[np.bool_],
    *,
    delta: float,
    confidence: float = 0.95,
    shares: Sequence[float] = SHARES,
) -> OneRun:
    """Guess at the extremes of `scores` and keep the best bound.

    Half of the guesses say that the highest scores are of included canaries, half that
    the lowest are not. How many guesses to make is tried in `shares`; what may go
    wrong is divided by their number (Bonferroni).
    """
    total = len(scores)
    level = 1 - (1 - confidence) / len(shares)
    best: OneRun | None = None
    for part in shares:
        guesses, correct = guessed(scores, included, part)
        bound = one_run_bound(guesses, correct, total, delta, level)
        found = OneRun(epsilon=bound, guesses=guesses, correct=correct, total=total)
        if best is None or found.epsilon > best.epsilon:
            best = found
    if best is None:
        raise ValueError("expected at least one share")
    return best
