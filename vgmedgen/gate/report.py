"""What the gate found, in numbers that may go with the images.

Counts, shares and bins only: no file, no unit, no distance of a single real image.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vgmedgen.gate.calibration import FIT, Calibration, Values
from vgmedgen.gate.statistics import Interval, as_many, share
from vgmedgen.gate.structure import SAME
from vgmedgen.gate.verdict import REASONS, Verdict

BINS = 24


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
    threshold: float  # of the score
    method: str  # where it comes from: rank, or tail
    false_alarms: float  # stated
    observed: Interval  # of held-out images, each left out of its own calibration
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
        observed: int,
        copies: int,
        sizes: tuple[int, int],
        heldout: tuple[Values, Values],
        digest: str,
    ) -> "Report":
        """Count.

        Args:
            verdicts: of the synthetic images.
            calibration: of the gate.
            rate: false-alarm rate as stated.
            observed: false alarms among the held-out images, each left out once.
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
        return cls(
            tried=tried,
            flagged=flagged,
            share=share(flagged, tried) if tried else None,
            reasons={reason: told[reason] for reason in REASONS if told[reason]},
            threshold=calibration.threshold,
            method=calibration.method,
            false_alarms=rate,
            observed=share(observed, calibration.images),
            same=SAME,
            training=sizes[0],
            heldout=sizes[1],
            copies=copies,
            closer=closer,
            expected=expected,
            chance=as_many(closer, tried, expected) if tried else 1.0,
            scores=_binned([one.score for one in verdicts], scores),
            distances=_binned([one.distance for one in verdicts], distances),
            gate=digest,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """What this does and does not show."""
        told = [
            (
                "Cleared means: compared with every training image of the site, as it "
                "is, turned, mirrored, cropped and shifted, and not nearer to one than "
                "images of other patients are."
            ),
            (
                "It catches copies. A model can hold something of a patient without "
                "copying an image, and what was copied in part or redrawn may pass."
            ),
            (
                "The gate reads the training images, so its verdicts are not covered by "
                "differential privacy: an epsilon that the model claims says nothing "
                "about which images were held back."
            ),
        ]
        if self.method == FIT:
            told.append(
                f"{self.heldout - self.copies} held-out images are too few to see a rate "
                f"of {self.false_alarms:.2%} by rank; the threshold is read off a smooth "
                "tail."
            )
        if self.copies:
            told.append(
                f"{self.copies} held-out images show the same picture as a training image "
                "of another unit; they were left out of the calibration, and the site may "
                "want to look at its units."
            )
        return told


def _binned(synthetic: Sequence[float], heldout: Values) -> Histogram:
    """Counts over bins between round edges, which tell no single value."""
    low, high = np.quantile(heldout, [0.0, 1.0])
    step = max(0.01, round(float(high - low) / (BINS - 4), 2))
    start = round(float(np.floor(low / step) - 2) * step, 6)
    edges = [round(start + step * place, 6) for place in range(BINS + 1)]

    def counts(values: Sequence[float] | Values) -> tuple[int, ...]:
        inside = np.clip(np.asarray(values, dtype=float), edges[0], edges[-1])
        return tuple(int(n) for n in np.histogram(inside, edges)[0])

    return Histogram(
        edges=tuple(edges), synthetic=counts(synthetic), heldout=counts(heldout)
    )
