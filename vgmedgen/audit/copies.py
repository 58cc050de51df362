"""Copies: does a synthetic image come nearer to a training image than real ones do?

An image is described by what the base's own encoders see in it: the VAE's latents, with
each channel's mean and scale taken off so that a change of tint or contrast hides
nothing, next to the prior's anatomy vector. A synthetic image is compared upright and
mirrored. How near is near is not a constant: it is how near held-out images of other
patients come. A distance alone proves no privacy; a copy disproves it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vgmedgen.data import images
from vgmedgen.data.records import Record
from vgmedgen.data.tables import read_rows
from vgmedgen.errors import ConfigError
from vgmedgen.gate.features import Describer
from vgmedgen.gate.statistics import Interval, excess_chance, share
from vgmedgen.synthesis.job import TABLE
from vgmedgen.training.samples import Samples

RANK_SHARE = 0.01  # of the held-out images, whose distance is the threshold
CLOSE = 0.5  # of the nearest held-out distance: closer than that is a copy by itself
SHOWN = 6  # pairs


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A synthetic image and the training image nearest to it."""

    synthetic: Path
    training: Path
    unit: str
    distance: float
    flagged: bool


@dataclass(frozen=True, kw_only=True)
class Copies:
    """What comparing synthetic images with training images found."""

    images: int  # synthetic
    flagged: int
    share: Interval  # flagged of all
    threshold: float  # distance
    expected: float  # share that would be flagged of images like the held-out ones
    chance: float  # of as many or more, if they were like the held-out ones
    near: int  # closer than `CLOSE` of the nearest held-out image
    worst: tuple[Pair, ...]
    distances: tuple[tuple[float, ...], tuple[float, ...]]  # synthetic, held-out

    def memorised(self, confidence: float = 0.95) -> bool:
        """Whether more, or more alike, than held-out images explain."""
        return self.near > 0 or (self.flagged > 0 and self.chance < 1 - confidence)


def read_synthetic(folder: Path, px: int) -> tuple[list[Path], Tensor]:
    """Images (N, 3, px, px) in [-1, 1] that `vgmedgen synthesize` wrote.

    Raises:
        ConfigError: if the folder has no table of them, or an empty one.
        DataError: if the table or an image cannot be read.
    """
    table = folder / TABLE
    if not table.is_file():
        raise ConfigError(
            f"{folder} has no {TABLE}; name a folder written by `vgmedgen synthesize`"
        )
    names = [row["image"] for _, row in read_rows(table, ("image",)) if row["image"]]
    if not names:
        raise ConfigError(f"{table} lists no image; synthesise some first")
    files = [folder / name for name in names]
    for file in files:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"{table} names {file}, which lies outside; correct it")
    loaded = [
        images.load(Record(path.name, path, (), path.name, "", {}), px)[0]
        for path in files
    ]
    return files, images.as_input(torch.stack(loaded))


def nearest(
    describe: Describer, pixels: Tensor, known: Tensor
) -> tuple[Tensor, Tensor]:
    """Distance (N,) to the nearest of `known` (M, F), and its row, over mirror images."""
    best = torch.full((len(pixels),), torch.inf)
    where = torch.zeros(len(pixels), dtype=torch.long)
    for sides in ((), (3,), (2,), (2, 3)):
        seen = describe(pixels.flip(sides) if sides else pixels)
        distance, row = torch.cdist(seen, known).min(1)
        closer = distance < best
        best = torch.where(closer, distance, best)
        where = torch.where(closer, row, where)
    return best, where


def compare(
    describe: Describer,
    files: list[Path],
    pixels: Tensor,
    training: Samples,
    heldout: Samples,
) -> Copies:
    """Compare synthetic images with those that trained.

    Args:
        describe: of images.
        files: of the synthetic images.
        pixels: (N, 3, H, W) of them.
        training: what they may copy.
        heldout: other patients' images, which are no copies.

    Raises:
        ConfigError: if there is no held-out image to compare with.
    """
    if not len(heldout):
        raise ConfigError("a check for copies needs held-out images; the site has none")
    known = describe(training.pixels(range(len(training)))[0])
    away, _ = nearest(describe, heldout.pixels(range(len(heldout)))[0], known)
    distance, where = nearest(describe, pixels, known)
    rank = max(1, int(RANK_SHARE * len(away)))
    threshold = away.sort().values[rank - 1].item()
    flags = distance < threshold
    count = int(flags.sum())
    order = distance.argsort()[:SHOWN].tolist()
    return Copies(
        images=len(files),
        flagged=count,
        share=share(count, len(files)),
        threshold=threshold,
        expected=rank / (len(away) + 1),
        chance=excess_chance(count, len(files), rank, len(away)),
        near=int((distance < CLOSE * away.min()).sum()),
        worst=tuple(
            Pair(
                synthetic=files[row],
                training=training.records[int(where[row])].image,
                unit=training.records[int(where[row])].unit,
                distance=distance[row].item(),
                flagged=bool(flags[row]),
            )
            for row in order
        ),
        distances=(tuple(distance.tolist()), tuple(away.tolist())),
    )
