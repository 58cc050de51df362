"""Images of different units that show one picture: turned, cropped, with other marks.

Published sets, and archives too, hold one picture under several names. Left in units of
their own, such twins stand on both sides of training and held-out, and a promise for each
unit covers half of what it says. They are found by the structure that the release gate
compares and by patches in common: every image is searched among those
of all other units.

A twin that is found hides further ones, so an image that has one is searched again beyond
all that hangs together with it, until nothing is new.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from vgmedgen.data import images
from vgmedgen.data.adapters import given
from vgmedgen.data.joining import joined, renamed
from vgmedgen.data.records import Dataset, Record
from vgmedgen.errors import DataError
from vgmedgen.files import write_text
from vgmedgen.gate.calibration import FEWEST
from vgmedgen.gate.local import Common, Patches
from vgmedgen.gate.structure import IDENTICAL, SAME, Match, Structures
from vgmedgen.gate.whitening import SIDE, grey, resized
from vgmedgen.process.parallel import side_by_side

COMMON = 8.0  # standing of patches in common from which two images show one picture:
# firmer than the gate's, as no held-out image says here what is usual among few units
PX = 128  # side at which images are read by default, pixels
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Pair:
    """Two images of different units that show one picture."""

    first: Record
    second: Record
    alike: float  # correlation of their structure
    standing: float  # how far it stands out; see `structure.SAME`
    common: float  # patches in common, placed alike; see `COMMON`

    @property
    def firmness(self) -> float:
        """How far they lie beyond the bound that they pass more clearly; at least 1."""
        return max(self.standing / SAME, self.alike / IDENTICAL, self.common / COMMON)


@dataclass(frozen=True)
class Twins:
    """What was found in a dataset.

    Attributes:
        before: as it was.
        after: the same records, units that share a picture joined.
        pairs: the most doubtful first; units may hang together over several.
        names: by record id, what a csv calls the image.
    """

    before: Dataset
    after: Dataset
    pairs: tuple[Pair, ...]
    names: Mapping[str, str]

    @property
    def images(self) -> int:
        """Images that stand in a pair."""
        both = ((pair.first.id, pair.second.id) for pair in self.pairs)
        return len(set(chain.from_iterable(both)))

    @property
    def groups(self) -> dict[str, list[str]]:
        """The units that were joined, by the name that they have together."""
        now = {record.id: record.unit for record in self.after.records}
        found: defaultdict[str, set[str]] = defaultdict(set)
        for record in self.before.records:
            found[now[record.id]].add(record.unit)
        several = ((name, units) for name, units in found.items() if len(units) > 1)
        return {name: sorted(units) for name, units in sorted(several)}


def find(
    dataset: Dataset, px: int = PX, progress: Callable[[int], None] = lambda _: None
) -> Twins:
    """Find the twins of a dataset, whatever the order of its records.

    Args:
        dataset: of which every image is read and searched.
        px: side at which images are read.
        progress: called with the number of images that were just dealt with, twice for
            each image.

    Raises:
        DataError: if an image cannot be read or has no name of its own, or there are
            too few units to tell what images of different ones have in common.
    """
    if len(dataset.units) < FEWEST:
        raise DataError(
            f"{dataset.name} has {len(dataset.units)} units; what images of different "
            f"units have in common shows in {FEWEST} at least: add data, or look through "
            "these by eye"
        )
    ids = [record.id for record in dataset.records]
    called = dict(zip(ids, given.own_names(dataset), strict=True))
    records = sorted(dataset.records, key=lambda record: record.id)
    pictures: list[Tensor] = []
    for picture in side_by_side(lambda one: _read(one, px), records, _CPU):
        pictures.append(picture)
        progress(1)
    pairs = _pairs(records, pictures, progress)
    names = joined((pair.first.unit, pair.second.unit) for pair in pairs)
    ordered = sorted(pairs, key=lambda one: (one.firmness, one.first.id, one.second.id))
    return Twins(dataset, renamed(dataset, names), tuple(ordered), called)


def write(twins: Twins, path: Path) -> None:
    """Write the units as a csv of all images, which an adapter takes as grouping.

    Raises:
        StateError: if the disk is full or not writable.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "unit"])
    table.writerows([twins.names[one.id], one.unit] for one in twins.after.records)
    write_text(path, text.getvalue())


def _pairs(
    records: Sequence[Record],
    pictures: Sequence[Tensor],
    progress: Callable[[int], None],
) -> list[Pair]:
    small = torch.cat([resized(one[None].float(), SIDE) for one in pictures])
    structures = Structures(small, [record.unit for record in records])
    patches = Patches(small, [record.unit for record in records])
    found: dict[tuple[int, int], tuple[float, float, float]] = {}
    rows: list[int] = list(range(len(records)))
    together = {record.unit: [record.unit] for record in records}
    while rows:

        def search(row: int) -> tuple[Match, Common]:
            own = together[records[row].unit]  # noqa: B023 - ended before it changes
            picture = pictures[row].float()
            return structures.search(picture, own), patches.search(picture, own)

        beyond: list[int] = []
        for row, (match, common) in zip(
            rows, side_by_side(search, rows, _CPU), strict=True
        ):
            progress(1)
            shown = []
            if match.standing >= SAME:
                shown.append((match.row, (match.alike, match.standing, 0.0)))
            if common.standing >= COMMON:
                shown.append((common.row, (0.0, 0.0, common.standing)))
            for other, by in shown:
                key = min(row, other), max(row, other)
                before = found.get(key, (0.0, 0.0, 0.0))
                alike, standing, shared = map(max, before, by)
                found[key] = alike, standing, shared
            if shown:
                beyond.append(row)
        ties = ((records[a].unit, records[b].unit) for a, b in found)
        together = _together(together, ties)
        left = (len(together) - len(together[records[row].unit]) for row in beyond)
        rows = [
            row for row, units in zip(beyond, left, strict=True) if units >= FEWEST // 2
        ]
    return [
        Pair(records[a], records[b], alike, standing, common)
        for (a, b), (alike, standing, common) in found.items()
    ]


def _together(
    units: Iterable[str], ties: Iterable[tuple[str, str]]
) -> dict[str, list[str]]:
    """For each unit all that it hangs together with, itself among them."""
    names = joined(ties)
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for unit in units:
        groups[names.get(unit, unit)].append(unit)
    return {unit: group for group in groups.values() for unit in group}


def _read(record: Record, px: int) -> Tensor:
    """One picture (px, px), grey; half as precise as the gate's, to be kept in memory."""
    image, _ = images.load(record, px)
    return grey(images.as_input(image)[None])[0].half()
