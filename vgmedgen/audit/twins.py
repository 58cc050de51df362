"""Held-out images that show the picture of a training image: mirrored, turned, cropped.

Published sets and archives hold one picture under several names. Where one name trains and
the other is held out, whatever compares the two sides compares a picture with itself:
membership finds less than there is, and a copy looks as usual as a held-out image. They are
named, and no comparison uses them.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vgmedgen.gate.structure import IDENTICAL, SAME, Match, Structures
from vgmedgen.gate.whitening import grey
from vgmedgen.process.parallel import side_by_side
from vgmedgen.training.loop import parts
from vgmedgen.training.samples import Samples

BATCH = 64  # images read together
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A held-out image and the training image whose picture it shows."""

    heldout: Path
    unit: str  # of the held-out image
    training: Path
    other: str  # unit of the training image
    alike: float  # correlation of their structure


def twins(training: Samples, heldout: Samples) -> tuple[Twin, ...]:
    """Search every held-out image among the training images, the most alike first."""
    if not len(training) or not len(heldout):
        return ()
    known = torch.cat(
        [grey(training.pixels(rows)[0]) for rows in parts(len(training), BATCH)]
    )
    structures = Structures(known, [record.unit for record in training.records])

    def search(row: int) -> Match:
        picture: Tensor = grey(heldout.pixels([row])[0])[0]
        return structures.search(picture)

    matches = side_by_side(search, range(len(heldout)), _CPU)
    found = [
        Twin(
            heldout=record.image,
            unit=record.unit,
            training=training.records[match.row].image,
            other=training.records[match.row].unit,
            alike=match.alike,
        )
        for record, match in zip(heldout.records, matches, strict=True)
        # by itself, as among few units nothing can stand out from the others
        if match.standing >= SAME or match.alike >= IDENTICAL
    ]
    return tuple(sorted(found, key=lambda one: -one.alike))


def without(heldout: Samples, found: tuple[Twin, ...]) -> Samples:
    """The held-out samples that show no picture of a training image."""
    images = {one.heldout for one in found}
    return heldout.only([record.image not in images for record in heldout.records])
