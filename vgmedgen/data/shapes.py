"""Geometry of a binary mask: moments, parts, convex hull, rings around its border.

Masks are float planes (N, N) of 0 and 1, N the side of the measuring grid.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ROUND_OFF = 1 / 12  # variance of a pixel's own width, so that one pixel has an extent


@dataclass(frozen=True)
class Moments:
    """First and second moments of a mask, in pixels of its grid.

    Attributes:
        x: Centroid from the left, 0 to 1.
        y: Centroid from the top, 0 to 1.
        long: Half long axis of the ellipse of equal moments.
        short: Half short axis.
        angle: Of the long axis, degrees in [0, 180), 0 is horizontal, 90 vertical.
    """

    x: float
    y: float
    long: float
    short: float
    angle: float


def _grid(side: int) -> tuple[Tensor, Tensor]:
    line = torch.arange(side, dtype=torch.float32) + 0.5
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    return rows, columns


def moments(mask: Tensor) -> Moments:
    """Centroid and ellipse of equal moments of a mask that is not empty."""
    rows, columns = _grid(mask.shape[0])
    total = mask.sum()
    x, y = (mask * columns).sum() / total, (mask * rows).sum() / total
    dx, dy = columns - x, rows - y
    xx = float((mask * dx * dx).sum() / total) + ROUND_OFF
    yy = float((mask * dy * dy).sum() / total) + ROUND_OFF
    xy = float((mask * dx * dy).sum() / total)
    middle, spread = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    # image rows run down, so the sign is turned for an angle as it is seen
    angle = math.degrees(0.5 * math.atan2(-2 * xy, xx - yy)) % 180
    return Moments(
        float(x) / mask.shape[1],
        float(y) / mask.shape[0],
        2 * math.sqrt(middle + spread),
        2 * math.sqrt(max(middle - spread, ROUND_OFF)),
        angle,
    )


def ellipse_gap(mask: Tensor, of: Moments) -> float:
    """1 minus the overlap (IoU) of a mask with its ellipse of equal moments."""
    rows, columns = _grid(mask.shape[0])
    dx, dy = columns - of.x * mask.shape[1], of.y * mask.shape[0] - rows
    turn = math.radians(of.angle)
    along = dx * math.cos(turn) + dy * math.sin(turn)
    across = dy * math.cos(turn) - dx * math.sin(turn)
    inside = ((along / of.long) ** 2 + (across / of.short) ** 2 <= 1).float()
    both = (mask * inside).sum()
    return 1 - float(both / (mask.sum() + inside.sum() - both).clamp_min(1))


def parts(mask: Tensor, smallest: float) -> list[Tensor]:
    """Connected parts (8 neighbours), largest first.

    Args:
        mask: (N, N) of 0 and 1.
        smallest: Share of the largest part below which a part is left out.
    """
    labels = mask * torch.arange(1, mask.numel() + 1).reshape(mask.shape).float()
    while True:
        spread = mask * functional.max_pool2d(labels[None], 3, 1, 1)[0]
        if torch.equal(spread, labels):
            break
        labels = spread
    found, sizes = torch.unique(labels[labels > 0], return_counts=True)
    order = sizes.argsort(descending=True, stable=True)
    kept = [at for at in order.tolist() if sizes[at] >= smallest * sizes[order[0]]]
    return [(labels == found[at]).float() for at in kept]


def solidity(mask: Tensor) -> float:
    """Area over the area of the convex hull; 1 is convex. The mask is not empty."""
    corners = []
    for row in mask.any(dim=1).nonzero().flatten().tolist():
        across = mask[row].nonzero().flatten()
        left, right = int(across[0]), int(across[-1]) + 1
        corners += [(left, row), (left, row + 1), (right, row), (right, row + 1)]
    hull = _hull(sorted(set(corners)))
    turned = zip(hull, hull[1:] + hull[:1], strict=True)
    area = abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in turned)) / 2
    return float(mask.sum()) / area


def _hull(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Convex hull of sorted points. Source: Andrew 1979, monotone chain."""

    def chain(ordered: list[tuple[int, int]]) -> list[tuple[int, int]]:
        kept: list[tuple[int, int]] = []
        for point in ordered:
            while len(kept) > 1 and _turn(kept[-2], kept[-1], point) <= 0:
                kept.pop()
            kept.append(point)
        return kept[:-1]

    return chain(points) + chain(points[::-1])


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def grown(mask: Tensor, by: int) -> Tensor:
    """The mask widened by `by` pixels, or for a negative number narrowed."""
    if by < 0:
        return 1 - grown(1 - mask, -by)
    return functional.max_pool2d(mask[None], 2 * by + 1, 1, by)[0] if by else mask
