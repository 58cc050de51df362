"""What the release gate was measured to find and to miss, kept in one place.

`measured.json` beside this module is written by tests/benchmarks/test_release_gate.py and
by nothing else; the gate's page shows it. The images are published ones.
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vgmedgen.files import write_text
from vgmedgen.gate.statistics import Interval, share

FILE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One gate, on one dataset at one size."""

    date: str  # of the measurement
    version: int  # of what the gate computes
    gate: str  # digest of images, base and settings
    dataset: str
    px: int
    asked: float  # rate of false alarms
    promised: float
    training: int  # images
    heldout: int
    copies: int  # of each kind
    found: dict[str, int]  # held back, by kind
    named: int  # of all that were, those that name the image's own unit
    strangers: int  # images of units that the site does not have
    duplicates: int  # of them, those that an independent check calls a training image
    flagged: int  # of the others, held back
    scenes: (
        int  # of these, by eye, the scene of a training image, cropped or a moment on
    )

    @property
    def alarms(self) -> Interval:
        """Share of false alarms with its 95 % interval."""
        count = self.strangers - self.duplicates - self.scenes
        return share(self.flagged - self.scenes, count)


@cache
def measured(path: Path = FILE) -> tuple[Measured, ...]:
    """Every measurement, by size and name of the dataset; none where none was made."""
    if not path.is_file():
        return ()
    told: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return tuple(Measured(**one) for one in told)


def publish(found: list[Measured], path: Path = FILE) -> None:
    """Replace what was measured of the same datasets and sizes, keep the rest."""
    kept = {(one.dataset, one.px): one for one in measured.__wrapped__(path)}
    kept |= {(one.dataset, one.px): one for one in found}
    told = [asdict(kept[key]) for key in sorted(kept, key=lambda key: key[::-1])]
    write_text(path, json.dumps(told, indent=1) + "\n")
    measured.cache_clear()
