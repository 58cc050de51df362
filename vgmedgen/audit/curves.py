"""What one run's guesses rule out of a whole privacy curve, not of one epsilon alone.

A claim (epsilon, delta) leaves room for mechanisms that are far worse in the middle of
their curve than Gaussian noise of that cost, so guesses prove little of it. What an engine
says that it does is more: steps of Poisson-subsampled Gaussian noise, whose delta is known
for every epsilon. That whole curve is put to the test here.

Source: Mahloujifar, Melis and Chaudhuri 2024, Auditing f-differential privacy in one run,
arXiv 2410.22235, for two choices (included or not), theorem 9 and algorithm 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vgmedgen.audit.statistics import SHARES, OneRun, Scores, guessed
from vgmedgen.privacy.accountant import Mechanism, profile, spent

Numbers = NDArray[np.float64]

HIGHEST = 24.0  # epsilon up to which a curve is taken
POINTS = 97  # of it
REACH = 6  # the noise is tried down to 2^-6 of the plan's, and up to 2^6
FINENESS = 8  # places between a noise and its double


@dataclass(frozen=True)
class Curve:
    """Delta at each of some epsilons, all above 0; upper bounds, in both directions."""

    epsilons: Numbers  # (k,)
    deltas: Numbers  # (k,)

    @classmethod
    def of(cls, mechanism: Mechanism) -> "Curve":
        """The curve of a training."""
        epsilons = np.linspace(0.0, 1.0, POINTS) ** 2 * HIGHEST
        return cls(epsilons, profile([mechanism], epsilons))

    def least(self, seen: float) -> float:
        """The least chance of an event in one world that has `seen` in the other."""
        rise = np.exp(self.epsilons)
        near = (seen - self.deltas) / rise
        far = 1 - self.deltas - rise * (1 - seen)
        return float(max(0.0, near.max(), far.max()))


def ruled_out(
    curve: Curve, guesses: int, correct: int, total: int, level: float
) -> bool:
    """Whether a mechanism of this curve gives so many correct guesses more rarely.

    Were the chance of at least `correct` as large as `level`, each canary's coin could be
    turned: events with one guess fewer right must then be likely too, and so on down to
    none. They are added up; where more than all there is comes out, it is not so.

    Args:
        curve: of the mechanism.
        guesses: of the attack.
        correct: of them, that were right.
        total: canaries, each included by a fair coin of its own.
        level: chance.
    """
    right = level * correct / total  # a canary is guessed right, and enough are
    wrong = level * (guesses - correct) / total
    for count in range(correct - 1, -1, -1):
        below = max(wrong, curve.least(right))
        right += count / (guesses - count) * (below - wrong)
        wrong = below
        if right + wrong > guesses / total:
            return True
    return False


def best(
    scores: Scores,
    included: NDArray[np.bool_],
    mechanism: Mechanism,
    *,
    delta: float,
    confidence: float,
) -> OneRun:
    """The largest epsilon that guesses at the extremes of `scores` rule out.

    It holds for an engine that does what the plan says with less noise, however much
    less. How many guesses to make is tried in `SHARES`; what may go wrong is divided.

    Args:
        scores: of the canaries.
        included: whether each trained.
        mechanism: of the training, as planned.
        delta: at which epsilon is told.
        confidence: of the bound.
    """
    tried = [guessed(scores, included, part) for part in SHARES]
    return _best(tried, len(scores), mechanism, delta, confidence)


def ceiling(
    total: int, mechanism: Mechanism, *, delta: float, confidence: float
) -> float:
    """The epsilon that right guesses at all of `total` canaries would rule out."""
    half = total // 2
    tried = [(2 * min(half, max(1, round(p * total / 2))),) * 2 for p in SHARES]
    return _best(tried, total, mechanism, delta, confidence).epsilon


def _best(
    tried: Sequence[tuple[int, int]],
    total: int,
    mechanism: Mechanism,
    delta: float,
    confidence: float,
) -> OneRun:
    level = (1 - confidence) / len(tried)

    def broken(place: int) -> tuple[int, int] | None:
        """The guesses that rule this noise out, as (guesses, correct)."""
        curve = _curve(_louder(mechanism, place))
        for guesses, correct in tried:
            if ruled_out(curve, guesses, correct, total, level):
                return guesses, correct
        return None

    # noise from the least to the most: what rules one out rules out all that is louder
    low, high = -REACH * FINENESS, REACH * FINENESS
    most = max(tried, key=lambda pair: (pair[1] / pair[0], pair[0]))
    proof = broken(high)
    if proof is None:
        return OneRun(epsilon=0.0, guesses=most[0], correct=most[1], total=total)
    while high - low > 1:
        middle = (low + high) // 2
        found = broken(middle)
        if found is None:
            low = middle
        else:
            high, proof = middle, found
    epsilon = spent([_louder(mechanism, high)], delta).epsilon
    return OneRun(epsilon=epsilon, guesses=proof[0], correct=proof[1], total=total)


def _louder(mechanism: Mechanism, place: int) -> Mechanism:
    return replace(mechanism, noise=mechanism.noise * 2.0 ** (place / FINENESS))


@lru_cache(maxsize=256)
def _curve(mechanism: Mechanism) -> Curve:
    return Curve.of(mechanism)
