"""Generic colour images without any anatomy, to widen what an autoencoder has seen."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vgmedgen.data.phantom_noise import Plane, band, chance, clouds, grid

_LEAVES = 60


def textures(rng: np.random.Generator, px: int) -> NDArray[np.uint8]:
    """Draw a dead-leaves or 1/f image, (px, px, 3) uint8.

    Dead leaves (opaque shapes of power-law size that hide each other) have the edges
    and scale statistics of natural images. Source: Lee, Mumford and Huang, Occlusion
    models for natural images, IJCV 2001.
    """
    ground = _tinted_noise(rng, px)
    if chance(rng, 0.65):
        canvas = _dead_leaves(rng, px, ground)
    elif chance(rng, 0.7):
        canvas = ground
    else:
        waves = band(rng, px, rng.uniform(3, 20), stretch=rng.uniform(0.5, 3))
        canvas = ground * (1 + rng.uniform(0.1, 0.4) * waves)[..., None]
    if chance(rng, 0.15):
        canvas = np.repeat(canvas.mean(axis=2, keepdims=True), 3, axis=2)
    grey = canvas.mean(axis=2, keepdims=True)
    canvas = grey + rng.uniform(0.2, 1) * (canvas - grey)
    return np.asarray(np.clip(canvas, 0, 1) * 255 + 0.5, dtype=np.uint8)


def _tinted_noise(rng: np.random.Generator, px: int) -> Plane:
    """1/f noise with correlated channels about a random colour, (px, px, 3)."""
    x, y = grid(px)
    shared = clouds(rng, px, rng.uniform(0.6, 2.2))[0]
    apart = clouds(rng, px, rng.uniform(1, 2.2), n=3)
    mean = rng.uniform(0.05, 0.95, 3)
    tilt = rng.normal(0, 0.2, (2, 3))
    sweep = (x - 0.5)[..., None] * tilt[0] + (y - 0.5)[..., None] * tilt[1]
    depth, chroma = rng.uniform(0.02, 0.25), rng.uniform(0, 0.12)
    noise = depth * shared[..., None] + chroma * np.moveaxis(apart, 0, -1)
    return np.asarray(mean + sweep + noise, dtype=np.float32)


def _dead_leaves(rng: np.random.Generator, px: int, ground: Plane) -> Plane:
    """Cover `ground` with leaves of flat colour, then give all of them one grain."""
    side = 2 * px
    sheet = Image.fromarray(np.asarray(np.clip(ground, 0, 1) * 255, dtype=np.uint8))
    sheet = sheet.resize((side, side), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(sheet)
    palette = (
        np.clip(rng.uniform(0, 1, 3) + rng.normal(0, 0.3, (_LEAVES, 3)), 0, 1) * 255
    )
    if chance(rng, 0.4):
        palette = rng.uniform(0, 255, (_LEAVES, 3))
    size = side * np.clip(0.04 * (1 - rng.random(_LEAVES)) ** -0.7, 0.03, 0.5)
    for leaf in range(_LEAVES):
        x, y = rng.uniform(0, side, 2)
        wide, high = size[leaf] * np.exp(rng.normal(0, 0.3, 2)) / 2
        red, green, blue = (int(value) for value in palette[leaf])
        box, fill = (x - wide, y - high, x + wide, y + high), (red, green, blue)
        if chance(rng, 0.7):
            pen.ellipse(box, fill=fill)
        else:
            corners = rng.uniform(-1, 1, (int(rng.integers(3, 6)), 2)) * (wide, high)
            pen.polygon(np.add(corners, (x, y)).ravel().tolist(), fill=fill)
    flat = np.asarray(sheet.reduce(2), dtype=np.float32) / 255
    grain = rng.uniform(0, 0.12) * clouds(rng, px, rng.uniform(0.3, 1.4))[0]
    return np.asarray(flat + grain[..., None], dtype=np.float32)
