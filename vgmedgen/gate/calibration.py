"""How unusual is unusual: the threshold that held-out images set.

Three detectors say how alike an image and its nearest training image are. Each value is
measured in units of the tail that held-out images show (an exponential tail through two
of their quantiles, which a few odd images do not move), and an image's score is its
most unusual detector. The threshold is a rank among the held-out images' scores, so that
an image like them is held back with at most the stated chance, whatever the distribution
(conformal prediction, Vovk et al. 2005); with too few of them for that rank, it is read
off the tail.

n held-out images, D detectors.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vgmedgen.errors import ConfigError

FEWEST = 20  # held-out images; fewer say nothing about a tail
BODY, TAIL = 0.5, 0.9  # quantiles that the tail is drawn through
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
        scale = np.maximum(tail - body, 1e-6) / math.log((1 - BODY) / (1 - TAIL))
        found = cls(body, scale, math.inf, RANK, count)
        scores = np.sort(found.scores(values))[::-1]
        rank = math.floor((count + 1) * rate)
        if rank >= 1:
            threshold, method = float(scores[rank - 1]), RANK
        else:
            low, high = np.quantile(scores, [BODY, TAIL])
            slope = (high - low) / math.log((1 - BODY) / (1 - TAIL))
            threshold = max(
                float(low + slope * math.log((1 - BODY) / rate)), float(scores[0])
            )
            method = FIT
        return cls(body, scale, threshold, method, count)

    def parts(self, values: Values) -> Values:
        """Every detector's value (n, D) in units of its tail."""
        found: Values = (values - self.centre) / self.scale
        return found

    def scores(self, values: Values) -> Values:
        """Scores (n,) of values (n, D)."""
        found: Values = self.parts(values).max(axis=1)
        return found


def false_alarms(values: Values, rate: float) -> int:
    """Held-out images that the others' threshold would hold back, each left out once."""
    if len(values) <= FEWEST:
        return 0
    found = 0
    for row in range(len(values)):
        others = Calibration.of(np.delete(values, row, axis=0), rate)
        found += bool(others.scores(values[row : row + 1])[0] > others.threshold)
    return found
