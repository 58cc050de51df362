"""Fine structure: is this the same picture, mirrored, turned, cropped, shifted or noisy?

Two pictures of one kind share what varies slowly: a dark round lesion, a bright field. What
tells a copy is the rest. Grey values are therefore whitened: every spatial frequency is
divided by how strong it is in this site's own training images and in noise that may lie
over a copy, so that thousands of independent details count alike. Then local contrast is
evened out, so that a frame or a label that many pictures share weighs by its area only.
Structures are compared by normalised correlation, whatever their brightness and contrast.

Every training image is looked at: a sketch of half the size under all turns, scales and
shifts, by one matrix product; then the best of every unit again at full size. A correlation
alone decides nothing, as a smooth or noisy picture has little structure to correlate and a
framed one much in common with all others. What counts is how far the most alike unit stands
out from the other units, in their own spread.

N training images.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vgmedgen.gate.units import Units
from vgmedgen.gate.whitening import (
    PART,
    SIDE,
    TURNS,
    Whitening,
    resized,
    resized_parts,
    turned,
)

NOISE = 8.0  # grey levels: standard deviation of noise that a copy may carry
SCALES = (0.9, 0.95, 1.0, 1 / 0.95, 1 / 0.9)  # of the picture against a training image
SLACK = 2  # px of the sketch that a picture may be shifted beyond its crop
CANDIDATES = 32  # units whose most alike image is looked at again at full size
POSES = 4  # turns and scales in which each of them is
NEXT = 8  # ranks passed over, as data may show one patient under several names
LEAST_SPREAD = 0.02  # of correlations, so that a few that agree are no measure
LEAST_ENERGY = 1e-6  # of two structures; flat pictures have none
LEAST_LENGTH = 0.03  # of a sketch, likewise: rounding is no structure
SAME = 16.0  # standing from which two images are one picture, whatever others do
IDENTICAL = 0.9  # correlation from which they are
FAST = (72, 80, 90, 96, 108, 120, 128)  # px of quick Fourier transforms: 2s, 3s and 5s
GRID = 4  # parts, in either direction, whose agreement is looked at by itself
KEPT = 0.75  # of these parts: those that agree least


@dataclass(frozen=True)
class Match:
    """The training image whose structure is most like a picture's."""

    alike: float  # correlation
    standing: float  # how far it stands out, in the spread of other units; see `SAME`
    row: int


class Structures:
    """The structure of every training image, and the search in it.

    Args:
        pictures: (N, H, W) grey.
        units: name of each picture's unit.
    """

    def __init__(self, pictures: Tensor, units: Sequence[str]) -> None:
        full = resized_parts(pictures, SIDE)
        half = resized_parts(full, SIDE // 2)
        self.full, self.half = Whitening(full, NOISE), Whitening(half, NOISE / 2)
        self.known = torch.cat(
            [self.full(part).half() for part in torch.split(full, PART)]
        )
        sketches = torch.cat([self.half(part) for part in torch.split(half, PART)])
        self.sketches = _unit(sketches.flatten(1))
        self.units = Units(units)

    def search(self, picture: Tensor, without: Collection[str] = ()) -> Match:
        """The training image most like one picture (H, W), grey.

        Args:
            picture: (H, W).
            without: units that are not looked at, such as the picture's own.
        """
        small = [resized(picture[None], round(SIDE // 2 * scale)) for scale in SCALES]
        sketched = torch.cat([self._sketched(self.half(one)[0]) for one in small])
        best, rows = self.units.best(sketched.amax(0), without)
        rows = rows[:CANDIDATES]
        poses = sketched[:, rows].topk(POSES, dim=0).indices  # (POSES, candidates)
        known = self.known[rows].float()
        alike = torch.full(poses.shape, -1.0)
        shifts = torch.zeros(*poses.shape, 2, dtype=torch.long)
        views: dict[int, Tensor] = {}
        for place, scale in enumerate(SCALES):
            pose, candidate = (poses // TURNS == place).nonzero(as_tuple=True)
            if not len(pose):
                continue
            large = resized(picture[None], round(SIDE * scale))
            views[place] = turned(self.full(large)[0])
            turn = poses[pose, candidate] % TURNS
            alike[pose, candidate], shifts[pose, candidate] = correlate(
                views[place], known, turn, candidate
            )
        agreement = torch.empty(len(rows))
        for number, chosen in enumerate(alike.argmax(0).tolist()):
            place, quarter = divmod(int(poses[chosen, number]), TURNS)
            down, right = shifts[chosen, number].tolist()
            agreement[number] = agreeing(
                views[place][quarter], known[number], down, right
            )
        ordered = agreement.sort(descending=True).values
        standing = _standing(ordered) + _standing(best)
        most, first = alike.amax(0).max(0)
        if most >= IDENTICAL:
            standing = max(standing, SAME)
        return Match(float(most), standing, int(rows[first]))

    def _sketched(self, structure: Tensor) -> Tensor:
        """Correlation (8, N) of the best shift of one structure (h, h), by turn."""
        side = SIDE // 2
        spare = side - structure.shape[-1]
        low, high = min(0, spare) - SLACK, max(0, spare) + SLACK
        room = functional.pad(turned(structure), (side, side, side, side))  # (8, ., .)
        shifted = [
            room[:, side - y : 2 * side - y, side - x : 2 * side - x]
            for y in range(low, high + 1)
            for x in range(low, high + 1)
        ]
        views = _unit(torch.stack(shifted, 1).flatten(2))
        shape = views.shape
        found = views.flatten(0, 1) @ self.sketches.T
        return found.view(shape[0], shape[1], -1).amax(1)


def correlate(
    seen: Tensor, known: Tensor, turn: Tensor, place: Tensor
) -> tuple[Tensor, Tensor]:
    """Best normalised correlation (B,) of pairs of structures, and its shift (B, 2).

    Args:
        seen: (T, h, h).
        known: (C, S, S).
        turn: (B,) which of `seen`.
        place: (B,) which of `known` it is compared with.
    """
    size, side = seen.shape[-1], known.shape[-1]
    spare = side - size
    low, high = min(0, spare) - 2 * SLACK, max(0, spare) + 2 * SLACK
    least = max(size, side) + max(-low, high)  # so far that nothing wraps around
    reach = next(one for one in FAST if one >= least)
    shape = (reach, reach)
    left = torch.fft.rfft2(seen, s=shape).conj()
    right = torch.fft.rfft2(known, s=shape)
    products = torch.fft.irfft2(right[place] * left[turn], s=shape)
    shifts = torch.arange(low, high + 1)
    around = shifts % reach
    dot = products[:, around][:, :, around]
    # energy of either within what they share at each shift
    start, stop = shifts.clamp(min=0), (shifts + size).clamp(max=side)
    mine = _energy(seen, start - shifts, stop - shifts)
    theirs = _energy(known, start, stop)
    energy = (mine[turn] * theirs[place]).clamp(min=LEAST_ENERGY)
    found, where = (dot / energy.sqrt()).flatten(1).max(1)
    down, right = where // len(shifts), where % len(shifts)
    return found, torch.stack([shifts[down], shifts[right]], 1)


def agreeing(seen: Tensor, known: Tensor, down: int, right: int) -> float:
    """Mean correlation of the parts of two structures that agree least.

    A frame or a label in common lies in a few parts; a copy agrees everywhere.

    Args:
        seen: (h, h).
        known: (S, S).
        down: px that `seen` is shifted by.
        right: the same.
    """
    size, side = seen.shape[-1], known.shape[-1]
    top, left = max(0, down), max(0, right)
    low, end = min(side, down + size), min(side, right + size)
    one = seen[top - down : low - down, left - right : end - right]
    other = known[top:low, left:end]
    sums = torch.stack([one * other, one.square(), other.square()])
    cells = functional.adaptive_avg_pool2d(sums[None], GRID)[0].flatten(1)
    energy = (cells[1] * cells[2]).clamp(min=LEAST_ENERGY)
    return float(
        (cells[0] / energy.sqrt()).sort().values[: round(KEPT * GRID**2)].mean()
    )


def _standing(alike: Tensor) -> float:
    """How far the first of sorted correlations stands above the others (N,).

    What a picture has in common with many, such as a frame or a plain blob, makes it
    like all of them; what makes it a copy, like one. Some of the next best may be
    further pictures of the same unit, and are passed over.
    """
    level = alike.clamp(-0.999, 0.999).atanh()
    others = level[min(NEXT, len(level) // 2) :]
    spread = others.std() + LEAST_SPREAD
    return float((level[0] - others.median()) / spread)


def _unit(sketches: Tensor) -> Tensor:
    """Sketches (..., F) of length 1; those of flat pictures stay next to nothing."""
    return functional.normalize(sketches, dim=-1, eps=LEAST_LENGTH)


def _energy(picture: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Sum of squares (B, K, K) in the windows from `start` to `stop` (K,), both ways."""
    total = functional.pad(picture.double().square().cumsum(1).cumsum(2), (1, 0, 1, 0))
    rows = total[:, stop] - total[:, start]
    return (rows[:, :, stop] - rows[:, :, start]).float()
