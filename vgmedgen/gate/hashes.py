"""Perceptual hash: 64 signs of an image's coarsest frequencies, compared bit by bit."""

import math

import torch
from torch import Tensor

from vgmedgen.gate.whitening import PART, resized, turned

SIDE = 32  # px that a picture is brought to
KEPT = 8  # frequencies per axis; 64 bits
BITS = KEPT * KEPT


def hashes(pictures: Tensor) -> Tensor:
    """Hashes (N, 64) of -1 and 1 of grey pictures (N, H, W).

    Each bit says whether a coefficient of the cosine transform lies above the picture's
    median one; the mean brightness is left out.
    """
    small = resized(pictures, SIDE)
    waves = _cosines()
    found = torch.einsum("uy,nyx,vx->nuv", waves, small, waves).flatten(1)
    found = found.round()  # a flat picture has no sign; the last bits would give it one
    middle = found[:, 1:].median(1, keepdim=True).values
    found[:, 0] = middle[:, 0]
    return torch.where(found > middle, 1.0, -1.0)


class Hashes:
    """The hash of every training image."""

    def __init__(self, pictures: Tensor) -> None:
        self.known = torch.cat([hashes(part) for part in torch.split(pictures, PART)])

    def search(self, picture: Tensor, among: Tensor) -> tuple[float, int]:
        """Share of equal bits with the most similar training image, turned, and its row.

        Args:
            picture: (H, W).
            among: (N,) which training images are looked at.
        """
        agreement = (hashes(turned(picture)) @ self.known.T + BITS) / (2 * BITS)
        best, row = agreement.amax(0).where(among, -1.0).max(0)
        return float(best), int(row)


def _cosines() -> Tensor:
    places = (torch.arange(SIDE) + 0.5) * math.pi / SIDE
    return torch.cos(torch.arange(KEPT)[:, None] * places)
