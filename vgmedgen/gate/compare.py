"""One image against every training image of a site, by four detectors."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgmedgen.gate import local
from vgmedgen.gate.features import BATCH, Extractor
from vgmedgen.gate.hashes import Hashes
from vgmedgen.gate.local import Patches
from vgmedgen.gate.structure import SAME, Structures
from vgmedgen.gate.whitening import grey, turned
from vgmedgen.process.parallel import side_by_side
from vgmedgen.training.loop import parts
from vgmedgen.training.samples import Samples

DIGITS = 4  # decimals that are kept: the last bits differ between machines
DETECTORS = ("structure", "hash", "features", "patches")
BOUNDS = (SAME, math.inf, math.inf, local.SAME)  # from which it is the very picture


@dataclass(frozen=True)
class Compared:
    """One image against all training images; the detectors in the order of `DETECTORS`."""

    values: tuple[float, ...]  # higher, more alike
    rows: tuple[int, ...]  # the training image that each detector finds
    distance: float  # of features, to the nearest training image
    heldout: float  # of features, to the nearest held-out image

    @property
    def same(self) -> bool:
        """Whether it shows the very picture, whatever held-out images do."""
        return bool(shows_same(np.array([self.values]))[0])


def shows_same(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the images (n,) with these values (n, detectors) show the very picture."""
    return np.asarray((values >= np.array(BOUNDS)).any(axis=1))


class Comparer:
    """Compares images with a site's training images, each image by itself.

    What comes out is a function of the image and the site's data, not of what is
    compared next to it.

    Args:
        training: what may not be copied.
        seen: gives features.
        features: (N, F) of the training images.
        others: (n, F) of the held-out images.
        device: where `seen` computes.
    """

    def __init__(
        self,
        training: Samples,
        seen: Extractor,
        features: Tensor,
        others: Tensor,
        device: torch.device,
    ) -> None:
        self._training, self._seen, self._device = training, seen, device
        self._features, self._others = features, others

    @cached_property
    def _grey(self) -> Tensor:
        rows = parts(len(self._training), BATCH)
        return torch.cat([grey(self._training.pixels(part)[0]) for part in rows])

    @cached_property
    def _structures(self) -> Structures:
        units = [record.unit for record in self._training.records]
        return Structures(self._grey, units)

    @cached_property
    def _patches(self) -> Patches:
        return Patches(self._grey, [record.unit for record in self._training.records])

    @cached_property
    def _hashes(self) -> Hashes:
        return Hashes(self._grey)

    def away(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Distances of an image (1, 3, H, W) to all training and all held-out images.

        The image is looked at in all its turns; the nearest counts.
        """
        seen = self._seen(turned(image)[:, 0])
        known = (self._features, self._others)
        near, far = (torch.cdist(seen, one).amin(0) for one in known)
        return near, far

    def __call__(self, images: Iterable[Tensor]) -> Iterator[Compared]:
        """Each image (1, 3, H, W) in [-1, 1], in their order."""
        self._prepare()
        yield from side_by_side(self._one, images, self._device)

    def usual(self, rows: Sequence[int]) -> Iterator[Compared]:
        """Training images, each against those of all units but its own."""
        self._prepare()

        def search(row: int) -> Compared:
            own = self._training.records[row].unit
            return self._one(self._training.pixels([row])[0], without=(own,))

        yield from side_by_side(search, rows, self._device)

    def _prepare(self) -> None:
        """Once, before several threads want them."""
        _ = self._structures, self._hashes, self._patches

    def _one(self, image: Tensor, without: Collection[str] = ()) -> Compared:
        picture = grey(image)[0]
        among = self._structures.units.among(without)
        match = self._structures.search(picture, without)
        agreement, similar = self._hashes.search(picture, among)
        common = self._patches.search(picture, without)
        near, far = self.away(image)
        near = near.where(among, torch.inf)
        nearest = int(near.argmin())
        distance = round(float(near[nearest]), DIGITS)
        closeness = -math.log(max(distance, 10.0**-DIGITS))
        return Compared(
            values=(
                round(match.standing, DIGITS),
                agreement,
                closeness,
                round(common.standing, DIGITS),
            ),
            rows=(match.row, similar, nearest, common.row),
            distance=distance,
            heldout=round(float(far.min()), DIGITS),
        )


def described(
    samples: Samples,
    seen: Extractor,
    device: torch.device,
    progress: Callable[[int], None],
) -> Tensor:
    """Features (N, F) of samples; `progress` is told of every batch."""
    batches = (samples.pixels(rows)[0] for rows in parts(len(samples), BATCH))
    found = []
    for features in side_by_side(seen, batches, device):
        found.append(features)
        progress(len(features))
    return torch.cat(found)
