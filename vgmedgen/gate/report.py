"""What the gate found, in numbers that may go with the images.

Counts, shares and bins only: no file, no unit, no distance of a single real image. The
threshold by rank is the score of one held-out image, so it is told to one decimal; bins
lie where no single image decides.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vgmedgen.gate.calibration import FIT, SLIP, Calibration, Values
from vgmedgen.gate.statistics import Interval, as_many, rate_beyond, share
from vgmedgen.gate.structure import SAME
from vgmedgen.gate.verdict import REASONS, Verdict

BINS = 30
COARSE = 1  # decimals of what is told of scores
LOWEST, STEP = -2.0, 0.5  # of the bins of scores; 0 is a usual image
ROOM = 1.25  # of the bins beyond the threshold
SPAN = 1.6  # of the bins of distances, in medians of the held-out ones
ROUND = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)  # where they may end, times a power of ten


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Two sets of values over the same bins; the first and last take what lies beyond."""

    edges: tuple[float, ...]  # (bins + 1,)
    synthetic: tuple[int, ...]
    heldout: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What comparing a set of synthetic images with the site's own came to."""

    tried: int
    flagged: int
    share: Interval | None  # flagged of tried, 95 %; None of nothing
    reasons: dict[str, int]
    threshold: float  # of the score, to one decimal
    method: str  # where it comes from: rank, or tail
    false_alarms: float  # asked for by the site
    promised: float  # at most, whatever the distribution; more where units are few
    likely: Interval  # of false alarms, given these held-out units and no others
    calibrating: int  # units held out, without copies
    same: float  # standing of structure that is always held back
    training: int  # images
    heldout: int
    copies: int  # held-out images that are copies of training images
    closer: int  # synthetic images nearer to training than to held-out images
    expected: float  # share of them by the sizes of the two sets
    chance: float  # of as many or more, if neither set were nearer
    scores: Histogram
    distances: Histogram
    gate: str  # digest

    @classmethod
    def of(
        cls,
        verdicts: Sequence[Verdict],
        *,
        calibration: Calibration,
        rate: float,
        copies: int,
        sizes: tuple[int, int],
        heldout: tuple[Values, Values],
        digest: str,
    ) -> "Report":
        """Count.

        Args:
            verdicts: of the synthetic images.
            calibration: of the gate.
            rate: false-alarm rate as asked for.
            copies: held-out images that are copies.
            sizes: images that train, and that are held out.
            heldout: scores and distances of the held-out images that are no copies.
            digest: of the gate.
        """
        tried = len(verdicts)
        flagged = sum(not one.cleared for one in verdicts)
        told = Counter(one.reason for one in verdicts if not one.cleared)
        closer = sum(one.closer for one in verdicts)
        expected = sizes[0] / (sizes[0] + sizes[1])
        scores, distances = heldout
        threshold = round(calibration.threshold, COARSE)
        count = calibration.units
        rank = math.floor(calibration.promised * (count + 1) + SLIP)
        likely = rate_beyond(rank, count)
        if calibration.method == FIT:  # the rank is but an upper bound
            likely = replace(likely, low=0.0)
        return cls(
            tried=tried,
            flagged=flagged,
            share=share(flagged, tried) if tried else None,
            reasons={reason: told[reason] for reason in REASONS if told[reason]},
            threshold=threshold,
            method=calibration.method,
            false_alarms=rate,
            promised=calibration.promised,
            likely=likely,
            calibrating=count,
            same=SAME,
            training=sizes[0],
            heldout=sizes[1],
            copies=copies,
            closer=closer,
            expected=expected,
            chance=as_many(closer, tried, expected) if tried else 1.0,
            scores=_binned(
                [one.score for one in verdicts], scores, _score_edges(threshold)
            ),
            distances=_binned(
                [one.distance for one in verdicts], distances, _edges_of(distances)
            ),
            gate=digest,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def cleared(self) -> int:
        """Images that were let pass."""
        return self.tried - self.flagged


def _score_edges(threshold: float) -> list[float]:
    """Bins that reach beyond the threshold, wider ones where it lies far out."""
    top = max(LOWEST + BINS * STEP, ROOM * threshold)
    step = STEP * math.ceil((top - LOWEST) / (BINS * STEP))
    return [LOWEST + step * place for place in range(BINS + 1)]


def _edges_of(distances: Values) -> list[float]:
    """Bins from 0 to a round number that lies well beyond the median."""
    wanted = max(SPAN * float(np.median(distances)), 1e-3)
    power = 10.0 ** math.floor(math.log10(wanted))
    top = next(many * power for many in ROUND if many * power >= wanted)
    return [round(top * place / BINS, 6) for place in range(BINS + 1)]


def _binned(
    synthetic: Sequence[float], heldout: Values, edges: Sequence[float]
) -> Histogram:
    """Counts over bins; what lies beyond falls into the first and the last."""

    def counts(values: Sequence[float] | Values) -> tuple[int, ...]:
        inside = np.clip(np.asarray(values, dtype=float), edges[0], edges[-1])
        return tuple(int(n) for n in np.histogram(inside, edges)[0])

    return Histogram(
        edges=tuple(edges), synthetic=counts(synthetic), heldout=counts(heldout)
    )
