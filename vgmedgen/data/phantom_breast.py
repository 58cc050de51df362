"""Breast-ultrasound-like phantoms: layered grey tissue, speckle, and a mass or none."""

import numpy as np

from vgmedgen.data.phantom_breast_mass import paint_mass
from vgmedgen.data.phantom_noise import (
    Plane,
    band,
    chance,
    cloud,
    clouds,
    fineness,
    grid,
    ramp,
    shift_columns,
    threads,
)
from vgmedgen.data.phantom_outline import Lesion, outline
from vgmedgen.data.phantom_strokes import calipers, lettering
from vgmedgen.data.phantom_truth import Painting, describe, mean_colours, nothing_drawn

SHARES = {"benign": 0.55, "malignant": 0.27, "normal": 0.18}

_DENSE = 0.42  # mean echo above which tissue counts as dense


def plan(rng: np.random.Generator, label: str) -> Lesion:
    """Decide a mass of the class `label` (one of `SHARES`); "normal" has area 0."""
    malignant = label == "malignant"
    shapes = (
        ["irregular", "spiculated", "lobulated"] if malignant else ["oval", "round"]
    )
    shape = str(rng.choice([*shapes, "lobulated"]))
    median, spread = (0.13, 0.65) if malignant else (0.05, 1.0)
    area = float(np.clip(median * np.exp(spread * rng.standard_normal()), 0.006, 0.45))
    x, y = rng.normal(0.48, 0.16), rng.normal(0.36, 0.12)
    if chance(rng, 0.25):  # anywhere, so that position is learnt apart from size
        x, y = rng.uniform(0.12, 0.88), rng.uniform(0.15, 0.82)
        area = min(area, 0.15)
    angle = rng.normal(0, 0.3)
    if malignant and chance(rng, 0.4):
        angle += np.pi / 2  # taller than wide
    rough = rng.uniform(0.35, 1) if malignant else rng.uniform(0, 0.25)
    soft = (0.3 if malignant else 0.1) * np.exp(0.5 * rng.standard_normal())
    return Lesion(
        label=label,
        x=float(np.clip(x, 0.12, 0.88)),
        y=float(np.clip(y, 0.12, 0.85)),
        area=0.0 if label == "normal" else area,
        elongation=float(
            rng.uniform(1, 1.15) if shape == "round" else rng.uniform(1.15, 2.2)
        ),
        angle=float(angle),
        shape=shape,
        irregularity=float(rough),
        softness=float(np.clip(soft, 0.02, 0.8)),
        grain=int(rng.integers(2**31)),
    )


def _layers(rng: np.random.Generator, px: int) -> tuple[Plane, Plane, Plane]:
    """Echo level, density of bright strands, and depth of the chest wall (px,)."""
    _, y = grid(px)
    waves = clouds(rng, px, 2.6, n=2)[:, 0, :]
    fat = rng.uniform(0.1, 0.38) + 0.05 * waves[0]
    gland = rng.uniform(0.5, 0.95) + 0.05 * waves[1]
    levels = (rng.uniform(0.22, 0.5), rng.uniform(0.34, 0.68), rng.uniform(0.06, 0.38))
    strands = (rng.uniform(0.1, 0.6), rng.uniform(0.3, 1), rng.uniform(0.1, 0.7))
    first = ramp(y, fat - 0.05, fat + 0.05)
    second = ramp(y, gland - 0.06, gland + 0.06)
    echo = levels[0] + (levels[1] - levels[0]) * first
    echo = echo + (levels[2] - echo) * second
    dense = strands[0] + (strands[1] - strands[0]) * first
    dense = dense + (strands[2] - dense) * second
    return echo, dense, gland


def _tissue(rng: np.random.Generator, px: int) -> Plane:
    """Echoes of the tissue alone, (px, px), before speckle."""
    _, y = grid(px)
    levels, dense, wall = _layers(rng, px)
    lie = rng.uniform(1.5, 6)
    fine = threads(rng, px, rng.uniform(14, 24), 3, stretch=lie)
    coarse = threads(rng, px, rng.uniform(4, 10), 7, stretch=lie)
    patch, gaps = clouds(rng, px, 1.3, stretch=2, n=2)
    lines = fine * 0.5 * ramp(gaps, -0.5, 1.5) + coarse * ramp(patch, -1.2, 0.8)
    lines = lines * dense
    lobules = band(rng, px, rng.uniform(4, 10), width=0.5, stretch=rng.uniform(1, 2.5))
    uneven = 0.24 * rng.uniform(0.3, 1.2) * lobules
    uneven = uneven + 0.15 * cloud(rng, px, 1.2, stretch=2)
    echo: Plane = (
        levels * np.clip(1 + uneven, 0.15, 2.2) + rng.uniform(0.3, 0.95) * lines
    )
    bend = clouds(rng, px, 2.8)[0, 0] * rng.uniform(0.005, 0.05) * px
    echo = shift_columns(echo, np.asarray(bend, np.float32))
    skin = rng.uniform(0.01, 0.05)
    echo = echo + rng.uniform(0.1, 0.5) * ramp(y, skin + 0.03, skin)
    if chance(rng, 0.5):  # fascia or rib: a bright line, darkness behind it
        depth = y - wall
        echo = echo + rng.uniform(0.15, 0.5) * np.exp(-np.square(depth / 0.012))
        echo = echo * (1 - rng.uniform(0.2, 0.9) * ramp(depth, 0.02, 0.15))
    return np.asarray(echo, dtype=np.float32)


def _beam(rng: np.random.Generator, px: int) -> Plane:
    """What depth and contact leave of the beam, (px, px), 0 to about 1.2."""
    _, y = grid(px)
    loss = np.exp(-rng.uniform(0, 2.2) * np.maximum(y - rng.uniform(0.2, 0.8), 0))
    broad, narrow = clouds(rng, px, 2.6, n=2)[:, 0, :]
    shade = (
        ramp(broad, 0.7, 2.2) * rng.uniform(0, 0.95) * ramp(y, 0, rng.uniform(0.3, 1))
    )
    stripes = 1 + rng.uniform(0, 0.15) * narrow * y
    return np.asarray(loss * (1 - shade) * stripes, dtype=np.float32)


def _speckle(rng: np.random.Generator, px: int) -> Plane:
    """Multiplicative speckle: Rayleigh amplitudes of a short correlation, mean 1."""
    size = rng.uniform(0.2, 0.8)
    real, imaginary = clouds(rng, px, size, stretch=rng.uniform(1, 1.8), n=2)
    amplitude = np.hypot(real, imaginary) / np.float32(np.sqrt(np.pi / 2))
    depth = rng.uniform(0.1, 0.4) * fineness(px)
    return np.asarray(1 + depth * (amplitude - 1), dtype=np.float32)


def _frame(rng: np.random.Generator, px: int) -> Plane:
    """1 where the probe's field of view lies: the whole image, or a sector."""
    x, y = grid(px)
    if chance(rng, 0.9):
        return np.ones((px, px), np.float32)
    lean, start = rng.uniform(0.25, 0.6), rng.uniform(0.1, 0.3)
    left = x + lean * y > start
    right = (1 - x) + lean * y > start
    sides = left & right if chance(rng, 0.6) else right
    return np.asarray(sides, dtype=np.float32)


def _overlay(
    rng: np.random.Generator, lesion: Lesion, px: int
) -> tuple[Plane, tuple[str, ...]]:
    """Lettering and calipers on the screen, (px, px), and their names."""
    ink, names = np.zeros((px, px), np.float32), []
    if chance(rng, 0.2):
        place = (
            rng.uniform(0.02, 0.6),
            rng.uniform(0.55, 0.93),
            int(rng.integers(2, 9)),
        )
        ink = np.maximum(ink, lettering(rng, px, [place], rng.uniform(0.03, 0.045)))
        names.append("lettering")
    if lesion.area and chance(rng, 0.2):
        reach = np.sqrt(lesion.area / np.pi)
        long, short = reach * lesion.elongation**0.5, reach / lesion.elongation**0.5
        ends = []
        for length, angle in ((long, lesion.angle), (short, lesion.angle + np.pi / 2)):
            step = (length * np.cos(angle), length * np.sin(angle))
            ends.append((lesion.x - step[0], lesion.y - step[1]))
            ends.append((lesion.x + step[0], lesion.y + step[1]))
        dotted = chance(rng, 0.6)
        ink = np.maximum(ink, calipers(px, ends, dotted=dotted))
        names.append("calipers")
    return ink, tuple(names)


def paint(lesion: Lesion, rng: np.random.Generator, px: int) -> Painting:
    """Paint the mass, if there is one, in breast tissue as a scanner shows it."""
    own = np.random.default_rng(lesion.grain)
    echo = _tissue(own, px)
    visible = _frame(rng, px)
    marks: tuple[str, ...] = ()
    dense = "dense" if float(echo.mean()) > _DENSE else "fatty"
    region = outline(lesion, own, px, visible) if lesion.area else None
    word = "none"
    if region is not None:
        echo, word, marks = paint_mass(echo, lesion, region, own)
    grey = echo * _beam(rng, px) * _speckle(rng, px)
    # Log compression, and the gain that the examiner chose.
    grey = np.log1p(6 * np.maximum(grey, 0)) / np.log(7)
    grey = np.clip(grey * rng.uniform(0.73, 1.03), 0, 1) ** rng.uniform(1.3, 2.2)
    grey = grey * visible + 0.004
    ink, extra = _overlay(rng, lesion, px)
    canvas = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    if region is None:
        mask = np.zeros((px, px), np.uint8)
        drawn = nothing_drawn(canvas.mean((0, 1)), tone=dense)
    else:
        mask = region.mask
        drawn = describe(
            lesion,
            region,
            mean_colours(canvas, region),
            colour=word,
            tone=dense,
            texture=marks + extra,
        )
    canvas = np.maximum(canvas, ink[..., None])
    return Painting(canvas=canvas, mask=mask, drawn=drawn)
