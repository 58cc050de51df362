"""What an endoscope's screen puts round the picture: cut corners, a box, lettering."""

import numpy as np

from vgmedgen.data.phantom_noise import Plane, chance, grid
from vgmedgen.data.phantom_strokes import lettering


def frame(rng: np.random.Generator, px: int) -> tuple[Plane, Plane, Plane]:
    """Draw the screen's frame.

    Returns:
        Planes (px, px): 1 where tissue shows, opacity of the lettering; and the colour
        of what does not show, (px, px, 3).
    """
    x, y = grid(px)
    shown = _opening(rng, x, y)
    border = np.broadcast_to(np.float32(rng.uniform(0, 0.03)), (px, px, 3)).copy()
    if chance(rng, 0.45):  # the box that shows how the scope lies
        width, height = rng.uniform(0.24, 0.36), rng.uniform(0.2, 0.36)
        box = (x < width) & (y > 1 - height)
        shown &= ~box
        if chance(rng, 0.25):
            border[box] = _scope_guide(rng, x[box] / width, (1 - y[box]) / height)
    ink = np.zeros((px, px), np.float32)
    if chance(rng, 0.6):
        top, size = rng.uniform(0.08, 0.5), rng.uniform(0.022, 0.035)
        count = int(rng.integers(1, 6))
        lines = [
            (0.01, top + 1.6 * size * row, int(rng.integers(2, 9)))
            for row in range(count)
        ]
        ink = lettering(rng, px, lines, size)
    return shown.astype(np.float32), ink, border


def _opening(rng: np.random.Generator, x: Plane, y: Plane) -> np.ndarray:
    """Cut corners, a round lens, or both, (px, px) bool."""
    cut = rng.uniform(0.1, 0.26, 4) if chance(rng, 0.3) else rng.uniform(0.14, 0.24)
    corners = np.stack([x + y, 1 - x + y, x + 1 - y, 2 - x - y])
    opening = (corners > np.reshape(cut, (-1, 1, 1))).all(axis=0)
    if chance(rng, 0.35):
        away = np.hypot(x - 0.5, y - 0.5)
        opening &= away < rng.uniform(0.5, 0.58)
    margin = rng.uniform(0, 0.03) if chance(rng, 0.3) else -1
    opening &= (x > margin) & (x < 1 - margin) & (y > margin) & (y < 1 - margin)
    return np.asarray(opening, dtype=bool)


def _scope_guide(rng: np.random.Generator, across: Plane, up: Plane) -> Plane:
    """Green picture of the scope in its box, colours (n, 3) of n box pixels."""
    curve = 0.5 + 0.3 * np.sin(rng.uniform(2, 6) * up + rng.uniform(0, 6))
    line = np.exp(-np.square((across - curve) / 0.07))[:, None]
    ground = np.array([0.05, rng.uniform(0.15, 0.4), 0.18], np.float32)
    return np.asarray(ground * (1 - line) + line * np.float32(0.75), np.float32)
