"""Patches of a picture, each described by the directions of its edges.

A patch is a grid of cells; a cell says how strong the edges of each direction are in it
(histograms of oriented gradients: Lowe 2004; Dalal and Triggs 2005; square roots as in
Arandjelovic and Zisserman 2012). Such a description changes little where a picture is
scaled by a fifth, stretched, turned by ten degrees, bent, brighter or noisy. Nothing of
it is learned elsewhere; what is usual is told by the site's own training images.

N pictures, P patches, F = 128 numbers.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 64  # px of a whole picture
CELL, CELLS, DIRECTIONS = 6, 4, 8  # px of a cell; cells each way; directions of edges
HALF = CELL * CELLS // 2  # px from the middle of a patch to its border
SHARP = 3  # power of the cosine to a direction; the higher, the fewer share an edge
FAINT = 4.0  # grey levels per 2 px, summed: edges of a patch that tell nothing
MOST = 0.2  # of a description of length 1, for one number
LEAST_LENGTH = 0.05
LEAST_EDGE = 1e-6  # squared


def cleaned(pictures: Tensor) -> Tensor:
    """Pictures (N, H, W) without lone pixels: the median of 3 x 3."""
    room = functional.pad(pictures[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    high, wide = pictures.shape[-2:]
    near = [room[:, y : y + high, x : x + wide] for y in range(3) for x in range(3)]
    return torch.stack(near).median(0).values


def rotated(picture: Tensor, degrees: float) -> Tensor:
    """A picture (H, W) turned about its middle, reflected where nothing is."""
    angle = math.radians(degrees)
    turn = torch.tensor(
        [
            [math.cos(angle), -math.sin(angle), 0],
            [math.sin(angle), math.cos(angle), 0],
        ]
    )
    shape = [1, 1, *picture.shape]
    places = functional.affine_grid(turn[None], shape, align_corners=False)
    found: Tensor = functional.grid_sample(
        picture[None, None], places, padding_mode="reflection", align_corners=False
    )
    return found[0, 0]


def edges(pictures: Tensor) -> Tensor:
    """Strength of edges of each direction (N, 8, H, W) around every pixel of (N, H, W)."""
    right = functional.pad(pictures[:, :, 2:] - pictures[:, :, :-2], (1, 1))
    down = functional.pad(pictures[:, 2:] - pictures[:, :-2], (0, 0, 1, 1))
    angles = (torch.arange(DIRECTIONS) * 2 * math.pi / DIRECTIONS).view(1, -1, 1, 1)
    right, down = right[:, None], down[:, None]
    strength = (right.square() + down.square() + LEAST_EDGE).sqrt()
    along = (right * angles.cos() + down * angles.sin()) / strength
    found = (along.clamp(min=0) ** SHARP * strength).flatten(0, 1)[:, None]
    reach = CELL - 1
    tent = CELL - (torch.arange(-reach, reach + 1)).abs().float()
    tent /= tent.sum()
    room = functional.pad(found, (reach, reach, reach, reach))
    across = functional.conv2d(room, tent.view(1, 1, 1, -1))
    pooled = functional.conv2d(across, tent.view(1, 1, -1, 1))
    return pooled.view(len(pictures), DIRECTIONS, *pictures.shape[-2:])


def turned_edges(strength: Tensor) -> Tensor:
    """Edges (8, 8, H, H) of a picture in all its turns, from its own (8, H, H).

    As `edges` of `whitening.turned` pictures: a quarter turn moves every direction on by
    two, a mirror image turns right into left.
    """
    quarter = [
        strength.roll(-times * DIRECTIONS // 4, 0).rot90(times, (-2, -1))
        for times in range(4)
    ]
    mirrored = (DIRECTIONS // 2 - torch.arange(DIRECTIONS)) % DIRECTIONS
    return torch.stack([*quarter, *(one[mirrored].flip(-1) for one in quarter)])


def middles(side: int, count: int) -> Tensor:
    """Where the middles of `count` patches lie along a side, evenly."""
    return torch.linspace(HALF, side - HALF, count).round().long()


def described(strength: Tensor, places: Tensor) -> Tensor:
    """Descriptions (N, P, F) of the patches whose middles are `places`, both ways.

    Args:
        strength: (N, 8, H, W), see `edges`.
        places: (p,) px; P is p squared.
    """
    count, side = len(places), strength.shape[-1]
    cells = (torch.arange(CELLS) - (CELLS - 1) / 2) * CELL
    at = (places[:, None] + cells).long().clamp(0, side - 1).flatten()
    grid = strength[:, :, at][:, :, :, at]
    shape = (len(strength), DIRECTIONS, count, CELLS, count, CELLS)
    patches = (
        grid.view(shape).permute(0, 2, 4, 1, 3, 5).reshape(len(grid), count**2, -1)
    )
    level = patches / (patches.norm(dim=-1, keepdim=True) + FAINT)
    even = functional.normalize(level.clamp(max=MOST), dim=-1, eps=LEAST_LENGTH)
    return even.sqrt()
