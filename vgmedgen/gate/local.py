"""Parts in common: does this picture hold patches of one training image, placed alike?

Fine structure tells a copy that is framed as its source is. One that was cropped to a
half, stretched, turned by some degrees or bent still holds patches that are in one
training image and in hardly another. Each patch of the picture is compared with all
patches of all training images; what counts is by how much the best of one image beats
the ninth best unit's (a ratio test, as Lowe 2004, over units). These votes are then
registered: only those count that agree on where one picture lies in the other, at one
scale, turn and mirror image, give or take what a stretch or a bend moves.

Twice: few patches among all training images give a short list, many patches among these
decide.

N training images, V views (scale and rotation, times 8 turns), Q patches of a picture.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vgmedgen.gate.patches import (
    HALF,
    SIDE,
    cleaned,
    described,
    edges,
    middles,
    rotated,
    turned_edges,
)
from vgmedgen.gate.units import Units
from vgmedgen.gate.whitening import PART, TURNS, resized

VIEWS = (
    *((1.25, 0.0), (1.0, 0.0), (0.8, 0.0), (0.64, 0.0), (0.5, 0.0)),
    *((0.9, 20.0), (0.9, -20.0)),
)  # scale and degrees at which a picture is looked at
WIDTHS = 48, 24  # numbers of a description: to decide by, for the short list
KNOWN = 11  # patches of a training image each way, to decide by
SPARSE = 6  # for the short list
ASKED = 3, 4  # patches of a picture each way, for the short list; 4 of a large one
LARGE = 70  # px from which a picture is large
STEP = 5  # px between patches of a picture, to decide by
SHORT = 32  # units on the short list
LIKELY = 20  # of them that say in which views it is worth to look again
NEXT = 8  # units passed over, as data may show one picture under several names
AGREE = 6.0  # px of a training image by which votes may differ on where it lies
LEAST_VOTES = 0.03
FITTED = 256  # training images that say what is usual of a description
FLAT = 0.5  # of the mean spread, so that what hardly varies is not blown up
SAME = 6.0  # standing from which two images hold one picture, whatever others do


@dataclass(frozen=True)
class Common:
    """The training image that most patches of a picture agree on."""

    standing: float  # votes beyond the ninth unit's, over these
    row: int


class Patches:
    """The patches of every training image, and the search in them.

    Args:
        pictures: (N, H, W) grey.
        units: name of each picture's unit.
    """

    def __init__(self, pictures: Tensor, units: Sequence[str]) -> None:
        self.units = Units(units)
        places = middles(SIDE, KNOWN)
        self.places = torch.cartesian_prod(places, places).float()
        chosen = torch.linspace(0, len(pictures) - 1, min(FITTED, len(pictures)))
        usual = _described(pictures[chosen.round().long()], places).flatten(0, 1)
        self.mean = usual.mean(0)
        spread, axes = torch.linalg.eigh(usual.T.cov(correction=0))  # least first
        weight = (spread + FLAT * spread.mean()).rsqrt()
        self.axes = (axes * weight).flip(1)[:, : WIDTHS[0]]
        few = torch.linspace(0, KNOWN - 1, SPARSE).round().long()
        sparse = (few[:, None] * KNOWN + few).flatten()
        dense, short = [], []
        for part in torch.split(pictures, PART):
            found = (_described(part, places) - self.mean) @ self.axes
            dense.append(functional.normalize(found, dim=-1).half())
            coarse = functional.normalize(found[:, sparse, : WIDTHS[1]], dim=-1)
            short += [
                one.reshape(-1, WIDTHS[1]).T.contiguous()
                for one in torch.split(coarse, SHORT)
            ]
        self.dense = torch.cat(dense)  # (N, P, 48)
        self.short = short  # of every 32 images, (24, 32 * 36)

    def search(self, picture: Tensor, without: Collection[str] = ()) -> Common:
        """The training image that holds most of one picture (H, W), grey.

        Args:
            picture: (H, W).
            without: units that are not looked at, such as the picture's own.
        """
        views = self._views(picture)
        votes = self._listed(views)
        _, rows = self.units.best(votes.amax(0), without)
        rows = rows[:SHORT]
        known = self.dense[rows].float()
        worth = sorted(set(votes[:, rows[:LIKELY]].argmax(0).tolist()))
        votes_of = []
        for view in worth:
            scale, strength = views[view // TURNS]
            votes_of.append(self._registered(scale, strength[view % TURNS], known))
        found = torch.stack(votes_of).amax(0)
        order = found.sort(descending=True).values
        other = order[min(NEXT, len(order) // 2)]
        standing = (order[0] - other) / (other + LEAST_VOTES)
        return Common(float(standing), int(rows[found.argmax()]))

    def _views(self, picture: Tensor) -> list[tuple[float, Tensor]]:
        """Scale, and edges (8, 8, s, s) in all turns, of every view."""
        plain = resized(cleaned(picture[None]), SIDE)[0]
        found = []
        for scale, degrees in VIEWS:
            seen = rotated(plain, degrees) if degrees else plain
            small = resized(seen[None], round(SIDE * scale))
            found.append((scale, turned_edges(edges(small)[0])))
        return found

    def _listed(self, views: Sequence[tuple[float, Tensor]]) -> Tensor:
        """Votes (V, N) of few patches, wherever they lie."""
        asked, view = [], []
        for number, (_, strength) in enumerate(views):
            side = strength.shape[-1]
            count = ASKED[side > LARGE]
            found = described(strength, middles(side, count)) - self.mean
            short = functional.normalize(found @ self.axes[:, : WIDTHS[1]], dim=-1)
            asked.append(short.flatten(0, 1))
            first = TURNS * number
            view += [first + turn for turn in range(TURNS) for _ in range(count**2)]
        patches, whose = torch.cat(asked), torch.tensor(view)
        best = torch.cat(
            [
                (patches @ known).view(len(patches), -1, SPARSE**2).amax(2)
                for known in self.short
            ],
            1,
        )
        votes = torch.zeros(TURNS * len(views), best.shape[1])
        votes.index_add_(0, whose, _beyond(best, self.units.highest(best)))
        return votes / whose.bincount().float().sqrt()[:, None]

    def _registered(self, scale: float, strength: Tensor, known: Tensor) -> Tensor:
        """Votes (C,) of many patches that agree on where they lie.

        Args:
            scale: of the view.
            strength: (8, s, s) of its edges.
            known: (C, P, 48) of the short list.
        """
        side = strength.shape[-1]
        count = max(ASKED[1], round((side - 2 * HALF) / STEP) + 1)
        places = middles(side, count)
        found = described(strength[None], places)[0] - self.mean
        asked = functional.normalize(found @ self.axes, dim=-1)
        alike = (asked @ known.flatten(0, 1).T).view(len(asked), *known.shape[:2])
        best, where = alike.max(2)  # (Q, C)
        votes = _beyond(best, best).T  # (C, Q)
        here = torch.cartesian_prod(places, places).float() / scale
        moved = (self.places[where] - here[:, None]).transpose(0, 1)  # (C, Q, 2)
        agree = (torch.cdist(moved, moved) < AGREE).float() @ votes[..., None]
        most = agree[..., 0].where(votes > 0, 0.0).amax(1)
        return torch.as_tensor(most / len(asked) ** 0.5)


def _beyond(alike: Tensor, units: Tensor) -> Tensor:
    """By how much each image's (Q, C) lies above the ninth best unit's (Q, U), if so."""
    rank = min(NEXT + 1, units.shape[1])
    ninth = units.topk(rank, dim=1).values[:, -1:]
    return (alike - ninth).clamp(min=0)


def _described(pictures: Tensor, places: Tensor) -> Tensor:
    small = resized(cleaned(pictures), SIDE)
    return described(edges(small), places)
