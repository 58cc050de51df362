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
    runs = _runs(mask)
    parent = list(range(len(runs)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    for at, (row, start, stop) in enumerate(runs):
        for before in range(at - 1, -1, -1):
            above, left, right = runs[before]
            if above < row - 1:
                break
            # half-open runs whose ends are equal touch at a corner
            if above == row - 1 and start <= right and left <= stop:
                parent[root(at)] = root(before)
    planes: dict[int, Tensor] = {}
    for at, (row, start, stop) in enumerate(runs):
        planes.setdefault(root(at), torch.zeros_like(mask))[row, start:stop] = 1
    ordered = sorted(planes.values(), key=lambda plane: -float(plane.sum()))
    return [plane for plane in ordered if plane.sum() >= smallest * ordered[0].sum()]


def _runs(mask: Tensor) -> list[tuple[int, int, int]]:
    """Row, first column and column after the last of every run of ones."""
    edges = functional.pad(mask, (1, 1)).diff(dim=1)
    starts, stops = (edges > 0).nonzero().tolist(), (edges < 0).nonzero().tolist()
    return [(row, at, end[1]) for (row, at), end in zip(starts, stops, strict=True)]


def solidity(mask: Tensor) -> float:
    """Area over the area of the convex hull; 1 is convex. The mask is not empty."""
    corners = [
        (column, edge)
        for row, start, stop in _runs(mask)
        for column in (start, stop)
        for edge in (row, row + 1)
    ]
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
    across = functional.max_pool2d(mask[None], (1, 2 * by + 1), 1, (0, by))
    return functional.max_pool2d(across, (2 * by + 1, 1), 1, (by, 0))[0]
