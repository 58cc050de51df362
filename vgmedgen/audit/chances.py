"""How likely chance alone gives what a recording shows. Pure functions of numbers.

Each gives an upper bound of a two-sided p-value, and holds at any sample size: exact
distributions or proven bounds, no approximation for large numbers. So thresholds of one
in a billion mean what they say, which is what lets dozens of tests share one small chance
of a false alarm.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vgmedgen.gate.statistics import binomial

Numbers = NDArray[np.float64]

NEGLIGIBLE = 1e-290  # mass left out of a generating function, per draw


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What one family of equal questions came to."""

    question: str
    value: float  # chance of a result so rare in any of them, if the engine is honest
    detail: str  # the rarest of them, in words


def worst(chances: ArrayLike, of: int | None = None) -> tuple[float, int]:
    """Chance that the rarest of many results is as rare as it is, and its place.

    Args:
        chances: of each result by itself, any shape; its flat place is returned.
        of: results that were looked at, if more than are given.

    Source: Bonferroni's inequality, which asks for no independence.
    """
    flat = np.asarray(chances, dtype=np.float64).ravel()
    if not flat.size:
        return 1.0, 0
    place = int(flat.argmin())
    return min(1.0, float(flat[place]) * (of or flat.size)), place


def squares(totals: ArrayLike, counts: ArrayLike) -> Numbers:
    """Chance of sums of `counts` squared standard normal values as far off as `totals`."""
    half, dof = (
        torch.as_tensor(np.asarray(part, dtype=np.float64) / 2)
        for part in np.broadcast_arrays(totals, counts)
    )
    tails = torch.minimum(
        torch.special.gammainc(dof, half), torch.special.gammaincc(dof, half)
    )
    # NaN where a total is no number: nothing is rarer than that
    found: Numbers = (2 * tails).nan_to_num(0.0).clamp(0, 1).numpy()
    return found


def normal(values: ArrayLike) -> Numbers:
    """Chance of standard normal values as far from 0 as `values`."""
    scaled = torch.as_tensor(np.asarray(values, dtype=np.float64)).abs() / math.sqrt(2)
    found: Numbers = torch.special.erfc(scaled).nan_to_num(0.0).numpy()
    return found


def cosines(values: ArrayLike, sizes: ArrayLike) -> Numbers:
    """Chance of normalised dot products as far from 0 as `values`.

    Holds where one of the two vectors, `sizes` long, is Gaussian and independent of the
    other: a cap of the sphere that is e away has at most the share exp(-n e^2 / 2).

    Source: Ball 1997, An elementary introduction to modern convex geometry, lemma 2.2.
    """
    power = np.asarray(sizes) * np.square(np.asarray(values, dtype=np.float64)) / 2
    found: Numbers = np.minimum(1.0, 2 * np.exp(-np.nan_to_num(power, nan=np.inf)))
    return found


def shape(values: ArrayLike) -> Numbers:
    """Chance of (rows, n) values whose distribution is as far from standard normal.

    The largest gap between the two distribution functions, as Kolmogorov and Smirnov
    take it, with a bound that holds for every n.

    Source: Massart 1990, the tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality.
    """
    rows = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    count = rows.shape[-1]
    if not count:
        return np.ones(rows.shape[:-1])
    below = (0.5 * torch.special.erfc(-torch.from_numpy(rows) / math.sqrt(2))).numpy()
    steps = np.arange(count + 1) / count
    gap = np.maximum(below - steps[:-1], steps[1:] - below).max(-1)
    chance = np.minimum(1.0, 2 * np.exp(-2 * count * np.square(gap)))
    found: Numbers = np.where(np.isnan(gap), 0.0, chance)
    return found


def counts(hits: ArrayLike, of: int, chance: float) -> Numbers:
    """Chance of numbers of successes among `of`, each of `chance`, as far off as `hits`."""
    table = _tails(of, chance)
    found: Numbers = np.asarray(table[np.asarray(hits, dtype=np.int64)])
    return found


@lru_cache(maxsize=64)
def _tails(of: int, chance: float) -> Numbers:
    """Two-sided tails (of + 1,) of the binomial."""
    mass = binomial(of, chance)
    low, high = mass.cumsum(), mass[::-1].cumsum()[::-1]
    both: Numbers = np.minimum(1.0, 2 * np.minimum(low, high))
    return both


def spread(hits: ArrayLike, of: int, chance: float) -> float:
    """Chance that independent binomial counts scatter as much, or as little, as `hits`.

    By Chernoff's bound on the sum of squared deviations from the mean, whose generating
    function is computed from the binomial itself.

    Args:
        hits: (k,) counts.
        of: trials behind each.
        chance: of a success.
    """
    seen = np.asarray(hits, dtype=np.float64)
    deviation = math.sqrt(of * chance * (1 - chance))
    if not seen.size or deviation == 0:
        return 1.0
    squared = ((np.arange(of + 1) - of * chance) / deviation) ** 2
    with np.errstate(divide="ignore"):
        logs = np.log(binomial(of, chance))
    kept = logs > math.log(NEGLIGIBLE)
    squared, logs = squared[kept], logs[kept]
    total = float((((seen - of * chance) / deviation) ** 2).sum())

    def bound(tilt: float) -> float:
        """Log of the bound at one tilt of the distribution."""
        powers = logs + tilt * squared
        top = powers.max()
        return len(seen) * float(top + math.log(np.exp(powers - top).sum())) - (
            tilt * total
        )

    rising = total >= len(seen)  # the mean of the sum is k
    ends = (0.0, 2.0) if rising else (-64.0 * len(seen), 0.0)
    for _ in range(200):  # ternary search of a convex function
        third = (ends[1] - ends[0]) / 3
        left, right = ends[0] + third, ends[1] - third
        falls = bound(left) > bound(right)
        ends = (left, ends[1]) if falls else (ends[0], right)
    return min(1.0, 2 * math.exp(min(0.0, bound(sum(ends) / 2))))
