"""Counts and what they prove: exact binomial tails and intervals. Pure functions."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HALVINGS = 60  # of a bisection: to the last digit of a double


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate between its confidence limits."""

    value: float
    low: float
    high: float


def share(hits: int, count: int, confidence: float = 0.95) -> Interval:
    """A share with its exact two-sided interval.

    Source: Clopper and Pearson 1934, by bisection of the binomial's tails.
    """
    tail = (1 - confidence) / 2
    return Interval(
        value=hits / count,
        low=share_below(hits, count, tail),
        high=1 - share_below(count - hits, count, tail),
    )


def share_below(hits: int, count: int, tail: float) -> float:
    """The share that `hits` of `count` exceed but for a chance of `tail`."""
    if hits == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if binomial(count, middle)[hits:].sum() > tail:
            high = middle
        else:
            low = middle
    return low


def rate_beyond(rank: int, count: int, confidence: float = 0.95) -> Interval:
    """Chance that a further value lies beyond the `rank`-th highest of `count`.

    The mean over all draws of the `count` values, and between which limits it lies for
    the one draw there is: beta(rank, count + 1 - rank), whatever the distribution
    (Vovk 2012), by bisection of the binomial's tails.
    """
    tail = (1 - confidence) / 2
    return Interval(
        value=rank / (count + 1),
        low=share_below(rank, count, tail),
        high=share_below(rank, count, 1 - tail),
    )


def as_many(hits: int, count: int, chance: float) -> float:
    """Probability of at least `hits` of `count`, each with `chance`: one-sided, exact."""
    return min(1.0, float(binomial(count, chance)[hits:].sum()))


def excess_chance(flagged: int, drawn: int, rank: int, reference: int) -> float:
    """Chance of at least `flagged` of `drawn` values below the `rank`-th of `reference`.

    It holds if both are drawn alike, whatever the distribution: the count is then beta
    binomial (drawn; rank, reference + 1 - rank).
    """
    a, b = rank, reference + 1 - rank
    logs = [
        math.lgamma(drawn + 1)
        - math.lgamma(k + 1)
        - math.lgamma(drawn - k + 1)
        + math.lgamma(k + a)
        + math.lgamma(drawn - k + b)
        - math.lgamma(drawn + a + b)
        + math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        for k in range(flagged, drawn + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def binomial(count: int, chance: float) -> NDArray[np.float64]:
    """Probabilities (count + 1,) of 0 to `count` successes."""
    if chance <= 0 or chance >= 1:
        mass = np.zeros(count + 1)
        mass[0 if chance <= 0 else count] = 1.0
        return mass
    k = np.arange(count + 1)
    steps = np.concatenate([[0.0], np.log(np.arange(1, count + 1))]).cumsum()
    ways = steps[count] - steps[k] - steps[count - k]
    found: NDArray[np.float64] = np.exp(
        ways + k * math.log(chance) + (count - k) * math.log1p(-chance)
    )
    return found
