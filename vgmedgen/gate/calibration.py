"""How unusual is unusual: the threshold that held-out images set.

Three detectors say how alike an image and its nearest training image are. Each value is
measured in units of the tail that held-out images show (an exponential tail through two
of their quantiles, which a few odd images do not move), and an image's score is its
most unusual detector. The threshold is a rank among the held-out images' scores, so that
an image like them is held back with at most the stated chance, whatever the distribution
(conformal prediction, Vovk et al. 2005); with too few of them for that rank to be
firm it is read off the tail if that lies higher: further out by what a tail drawn
through few images may be wrong by.

n held-out images, D detectors.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vgmedgen.errors import ConfigError

FEWEST = 20  # held-out images; fewer say nothing about a tail
BODY, TAIL = 0.5, 0.9  # quantiles that the tail is drawn through
REACH = math.log((1 - BODY) / (1 - TAIL))  # between them, in units of the tail
WORTH = REACH**2 / (1 / (1 - TAIL) - 1 / (1 - BODY))  # images beyond `BODY` that would
# tell an exponential tail as well, for each image that its two quantiles come from
FIRM = 3  # rank below which one image more or less would move the threshold far
LEAST = (
    1 / 64
)  # unit of a tail: a bit of a hash, the coarsest that is measured in steps
RANK, FIT = "rank", "tail"  # where a threshold comes from

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What counts as unusual."""

    centre: Values  # (D,)
    scale: Values  # (D,)
    threshold: float  # of the score
    method: str  # RANK or FIT
    images: int  # held-out, without those that are copies

    @classmethod
    def of(cls, values: Values, rate: float) -> "Calibration":
        """Calibrate on held-out images.

        Args:
            values: (n, D), higher for more alike.
            rate: chance that an image like the held-out ones is held back.

        Raises:
            ConfigError: if there are fewer than `FEWEST`.
        """
        count = len(values)
        if count < FEWEST:
            raise ConfigError(
                f"the release gate needs {FEWEST} held-out images that are no copies of "
                f"training images, and this site has {count}; hold more out (heldout: "
                "0.3 in site.yaml) or add data"
            )
        body, tail = np.quantile(values, [BODY, TAIL], axis=0)
        scale = np.maximum((tail - body) / REACH, LEAST)
        found = cls(body, scale, math.inf, RANK, count)
        scores = np.sort(found.scores(values))[::-1]
        rank = rank_of(count, rate)
        method = RANK if rank else FIT
        threshold = float(scores[max(rank, 1) - 1])
        if rank < FIRM:
            threshold, method = max((threshold, method), (_beyond(scores, rate), FIT))
        return cls(body, scale, threshold, method, count)

    def parts(self, values: Values) -> Values:
        """Every detector's value (n, D) in units of its tail."""
        found: Values = (values - self.centre) / self.scale
        return found

    def scores(self, values: Values) -> Values:
        """Scores (n,) of values (n, D)."""
        found: Values = self.parts(values).max(axis=1)
        return found


def rank_of(count: int, rate: float) -> int:
    """Which of so many held-out images, the most unusual first, is the threshold.

    Below `FIRM` it is read off their tail instead, if that lies higher.
    """
    return math.floor((count + 1) * rate)


def _beyond(scores: Values, rate: float) -> float:
    """Where a next score lies with a chance of `rate`, if the tail is exponential.

    Not knowing its slope but from these scores makes the chance fall like a power (the
    predictive distribution, Lawless and Fredette 2005) and not like an exponential.
    """
    low, high = np.quantile(scores, [BODY, TAIL])
    known = WORTH * len(scores) / 2  # they gave every detector its measure already
    far = known * (((1 - BODY) / rate) ** (1 / known) - 1)
    return float(low + (high - low) / REACH * far)


def false_alarms(values: Values, rate: float) -> int:
    """Held-out images that the others' threshold would hold back, each left out once."""
    if len(values) <= FEWEST:
        return 0
    found = 0
    for row in range(len(values)):
        others = Calibration.of(np.delete(values, row, axis=0), rate)
        found += bool(others.scores(values[row : row + 1])[0] > others.threshold)
    return found
