"""Which unit each training image belongs to; a unit's images must not hide each other.

N images, U units.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor


class Units:
    """The units of training images.

    Args:
        units: (N,) name of each image's unit.
    """

    def __init__(self, units: Sequence[str]) -> None:
        self.place = {unit: number for number, unit in enumerate(sorted(set(units)))}
        self.unit = torch.tensor([self.place[unit] for unit in units])

    def among(self, without: Collection[str]) -> Tensor:
        """Which images (N,) are of no unit in `without`."""
        left_out = torch.tensor([self.place[unit] for unit in without])
        return ~torch.isin(self.unit, left_out)

    def best(
        self, alike: Tensor, without: Collection[str] = ()
    ) -> tuple[Tensor, Tensor]:
        """Each unit's best of (N,), best unit first, and the rows of these images."""
        values, rows = alike.sort(descending=True, stable=True)
        if without:
            kept = self.among(without)[rows]
            values, rows = values[kept], rows[kept]
        seen = self.unit[rows].numpy()
        first = torch.from_numpy(np.sort(np.unique(seen, return_index=True)[1]))
        return values[first], rows[first]

    def highest(self, alike: Tensor) -> Tensor:
        """Each unit's best (Q, U) of (Q, N)."""
        if len(self.place) == len(self.unit):
            return alike
        found = torch.full((len(alike), len(self.place)), -torch.inf)
        return found.scatter_reduce_(1, self.unit.expand_as(alike), alike, "amax")
