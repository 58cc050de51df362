"""How unusual is unusual: the threshold that held-out images set.

Several detectors say how alike an image and its nearest training image are. Each value is
measured in units of its usual tail (an exponential one through two quantiles, which a
few odd images do not move), and an image's score is its most unusual detector. These
tails are those of training images, each compared with all units but its own: no held-out
image has a part in what a score is.

The threshold is then a rank among the scores of all held-out images, so that an image of
another unit, drawn as the held-out units were, is held back with at most the promised
chance, exactly and whatever the distribution (split conformal prediction: Vovk et al.
2005; Papadopoulos et al. 2002). A unit's images share its weight, as they are alike (Lee,
Barber and Willett 2023). K units can promise no less than 1 / (K + 1). Where less
is asked for, or the rank hangs on a few images, the threshold is read off the tail of
the scores if that lies higher: nearer to what is asked for, and never more than promised.

n images of K units, D detectors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vgmedgen.errors import ConfigError

FEWEST = 20  # held-out images; fewer say nothing about a tail
BODY, TAIL = 0.5, 0.9  # quantiles that a tail is drawn through
REACH = math.log((1 - BODY) / (1 - TAIL))  # between them, in units of the tail
WORTH = REACH**2 / (1 / (1 - TAIL) - 1 / (1 - BODY))  # images beyond `BODY` that would
# tell an exponential tail as well, for each image that its two quantiles come from
FIRM = 3  # rank below which one image more or less would move the threshold far
LEAST = (
    1 / 64
)  # unit of a tail: a bit of a hash, the coarsest that is measured in steps
RANK, FIT = "rank", "tail"  # where a threshold comes from
SLIP = 1e-9  # of a sum of weights that are shares

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Tails:
    """How unusual each value of each detector is, seen from images that copy nothing."""

    centre: Values  # (D,)
    scale: Values  # (D,)

    @classmethod
    def of(cls, values: Values) -> "Tails":
        """Fit to values (n, D), higher for more alike; never to held-out ones.

        Raises:
            ConfigError: if there are fewer than `FEWEST`.
        """
        if len(values) < FEWEST:
            raise ConfigError(
                f"the release gate learns what is usual from training images, and only "
                f"{len(values)} of those it looked at show no picture of another unit "
                f"(it needs {FEWEST}); keep such images together with vgmedgen data "
                "twins, or add data"
            )
        body, tail = np.quantile(values, [BODY, TAIL], axis=0)
        return cls(body, np.maximum((tail - body) / REACH, LEAST))

    def parts(self, values: Values) -> Values:
        """Every detector's value (n, D) in units of its tail."""
        found: Values = (values - self.centre) / self.scale
        return found

    def scores(self, values: Values) -> Values:
        """Scores (n,) of values (n, D)."""
        found: Values = self.parts(values).max(axis=1)
        return found


@dataclass(frozen=True)
class Calibration:
    """From which score on an image counts as unusual, and what that promises."""

    threshold: float  # of the score
    method: str  # RANK or FIT
    images: int  # held-out, without those that are copies
    units: int  # of them
    promised: float  # chance, at most, that an image of another unit is held back

    @classmethod
    def of(cls, scores: Values, units: Sequence[str], rate: float) -> "Calibration":
        """Calibrate on held-out images.

        Args:
            scores: (n,) of a measure that these images had no part in.
            units: (n,) name of each image's unit.
            rate: chance that is asked for.

        Raises:
            ConfigError: if there are fewer than `FEWEST`.
        """
        count = len(scores)
        if count < FEWEST:
            raise ConfigError(
                f"the release gate needs {FEWEST} held-out images that are no copies of "
                f"training images, and this site has {count}; hold more out (heldout: "
                "0.3 in site.yaml) or add data"
            )
        names, place, many = np.unique(units, return_inverse=True, return_counts=True)
        promised = max(rate, least_rate(len(names)))
        order = np.argsort(-scores, kind="stable")
        beyond = (1 + np.cumsum(1 / many[place[order]])) / (len(names) + 1)
        threshold = float(scores[order[np.argmax(beyond > promised + SLIP)]])
        method = RANK
        if rank_of(len(names), rate) < FIRM:
            far = _beyond(scores, rate)
            threshold, method = max((threshold, RANK), (far, FIT))
        return cls(threshold, method, count, len(names), promised)


def least_rate(units: int) -> float:
    """The smallest chance that so many held-out units can promise."""
    return 1 / (units + 1)


def rank_of(count: int, rate: float) -> int:
    """Which of so many held-out units, the most unusual first, is the threshold.

    Below `FIRM` it is read off their tail instead, if that lies higher.
    """
    return math.floor((count + 1) * rate + SLIP)


def _beyond(scores: Values, rate: float) -> float:
    """Where a next score lies with a chance of `rate`, if the tail is exponential.

    Not knowing its slope but from these scores makes the chance fall like a power (the
    predictive distribution, Lawless and Fredette 2005) and not like an exponential.
    """
    low, high = np.quantile(scores, [BODY, TAIL])
    known = WORTH * len(scores)
    far = known * (((1 - BODY) / rate) ** (1 / known) - 1)
    return float(low + (high - low) / REACH * far)
