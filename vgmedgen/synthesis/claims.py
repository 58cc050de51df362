"""What a folder claims that a stopped job did, checked before the job goes on.

A line of the job's memory is taken only if the job itself could have written it: of an
image that is asked for, with a verdict where a gate judges, kept exactly where that
clears it, and with the very files that its layout gives it. Whether a cleared image is
one is asked of the gate again; what the folder says of itself is not enough to let an
image leave.
"""

import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vgmedgen.data import images
from vgmedgen.errors import ConfigError, DataError, StateError
from vgmedgen.files import is_system
from vgmedgen.gate import page
from vgmedgen.gate.release import ReleaseGate, Verdict
from vgmedgen.synthesis import layouts, state
from vgmedgen.synthesis.asked import Ask
from vgmedgen.synthesis.dicom import SUFFIX
from vgmedgen.synthesis.provenance import Facts, read_back
from vgmedgen.synthesis.state import Line

TABLE = "images.csv"
QUARANTINE, HELD = "quarantine", "quarantine.csv"
NOT_CLEARED = "NOT-CLEARED.txt"
WARNING = (
    "No release gate compared these images with the patients of the site that drew them. "
    "Any of them may be a copy. They are not cleared to leave the site.\n"
)
DICOM = "dicom"  # folder
ALIKE = 1e-3  # of two distances or scores that two machines computed


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Which files a job writes, image by image."""

    asks: Mapping[int, Ask]  # by number
    places: Mapping[int, int]  # among those of their label
    layout: str
    masks: bool
    dicom: bool
    gated: bool

    def files(self, number: int, *, kept: bool) -> set[str]:
        """Every file of an image, kept in the layout or held back."""
        if not kept:
            return {f"{QUARANTINE}/{number:05d}.png"}
        one = layouts.kept(
            self.layout,
            self.asks[number],
            self.places[number],
            masks=self.masks,
            box=None,
        )
        found = {one.image, one.mask} - {""}
        return found | {f"{DICOM}/{number:05d}{SUFFIX}"} if self.dicom else found

    def either(self, number: int) -> set[str]:
        """Every file that an image may have, whatever the gate says of it."""
        return self.files(number, kept=True) | self.files(number, kept=False)

    def tables(self) -> set[str]:
        """The files that tell of all images."""
        found = {TABLE, state.JOB, f"{state.PRIVATE}/{state.VERDICTS}"}
        found |= layouts.tables(self.layout, [], 1).keys()
        if not self.gated:
            return found | {NOT_CLEARED}
        return found | {page.JSON, page.HTML, f"{QUARANTINE}/{HELD}"}

    def sound(self, line: Line) -> bool:
        """Whether this job could have written a line; its files are not looked at."""
        if line.number not in self.asks or self.gated != (line.verdict is not None):
            return False
        if line.verdict is None:
            cleared = True  # stands in the layout, and says that it is not
        else:
            try:
                verdict = Verdict.from_json(line.verdict)
            except (StateError, RecursionError):
                return False
            cleared = verdict.cleared
            numbers = math.isfinite(verdict.distance) and math.isfinite(verdict.score)
            if bool(verdict.reason) == cleared or not numbers:
                return False
        expected = self.files(line.number, kept=cleared)
        return line.kept == cleared and line.files.keys() == expected

    def refuse_others(
        self, out: Path, lines: Mapping[int, Line], *, whole: bool
    ) -> None:
        """Refuse a folder that holds what the job did not write there.

        Args:
            out: folder of the job.
            lines: of the images that are done.
            whole: whether all are; until then the others may have left something.

        Raises:
            ConfigError: naming the first such file.
        """
        known = self.tables()
        for line in lines.values():
            known |= line.files.keys()
        for number in () if whole else self.asks.keys() - lines.keys():
            known |= self.either(number)
        other = next(_others(out, known), None)
        if other is not None:
            raise ConfigError(
                f"{out} holds {other}, which this job did not write; move it elsewhere, "
                "then go on with --resume"
            )


def _others(out: Path, known: Collection[str]) -> Iterator[str]:
    """Files, links and folders below `out` that are not known, by name."""
    folders = {str(above) for name in known for above in Path(name).parents}
    for here, below, names in os.walk(out):
        below.sort()
        place = Path(here).relative_to(out)
        for name in sorted([*names, *below]):
            if is_system(Path(here) / name):
                continue
            path = str(place / name)
            allowed = folders if name in below else known
            if path not in allowed or (Path(here) / name).is_symlink():
                yield path


def confirmed(
    out: Path, line: Line, image: str, told: Facts, gate: ReleaseGate
) -> bool:
    """Whether the files of a cleared image show what the gate clears.

    Args:
        out: folder of the job.
        line: of a cleared image, whose files stand there.
        image: its path in the layout.
        told: what its file has to say of its origin.
        gate: asked again.
    """
    recorded = Verdict.from_json(line.verdict or "")
    shown = [image, *(name for name in line.files if name.endswith(SUFFIX))]
    try:
        if read_back(out / image) != told:
            return False
        pictures = [images.read(out / name) for name in shown]
        found = gate.judge(np.stack(pictures))
    except (ConfigError, DataError, OSError, ValueError):
        return False
    return all(
        verdict.cleared
        and (name.endswith(".jpg") or _agree(verdict, recorded))  # a JPEG is a likeness
        for name, verdict in zip(shown, found, strict=True)
    )


def _agree(one: Verdict, other: Verdict) -> bool:
    return all(
        math.isclose(mine, theirs, rel_tol=ALIKE, abs_tol=ALIKE)
        for mine, theirs in ((one.distance, other.distance), (one.score, other.score))
    )
