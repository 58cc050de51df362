"""Endoscopy-like phantoms: wet mucosa with folds and vessels, lit from the scope."""

from dataclasses import dataclass

import numpy as np

from vgmedgen.data.phantom_gut_frame import frame
from vgmedgen.data.phantom_noise import (
    Plane,
    band,
    chance,
    cloud,
    clouds,
    grid,
    ramp,
    threads,
)
from vgmedgen.data.phantom_outline import Lesion, Region, outline
from vgmedgen.data.phantom_truth import Painting, describe, mean_colours, nearest

SHARES = {"polyp": 1.0}

# Names of polyp and mucosa colours before light, 0 to 255.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (218, 88, 68),
    "pink": (224, 134, 118),
    "orange": (222, 126, 78),
    "yellow": (228, 170, 98),
    "pale": (230, 186, 160),
    "brown": (172, 106, 74),
    "purple": (164, 106, 116),
}
_MUCOSA = {"pink": 0.36, "orange": 0.32, "red": 0.16, "brown": 0.11, "purple": 0.05}
_POLYP = {"red": 0.36, "pink": 0.26, "orange": 0.2, "pale": 0.1, "yellow": 0.08}


def plan(rng: np.random.Generator, label: str) -> Lesion:
    """Decide a polyp."""
    shape = str(
        rng.choice(
            ["round", "oval", "lobulated", "irregular"], p=[0.3, 0.35, 0.2, 0.15]
        )
    )
    x, y = rng.normal(0.54, 0.15), rng.normal(0.5, 0.15)
    if chance(rng, 0.3):
        x, y = rng.uniform(0.15, 0.85, 2)
    rough = rng.uniform(0.35, 0.9) if shape == "irregular" else rng.uniform(0.05, 0.35)
    area = 0.12 * np.exp(0.85 * rng.standard_normal())
    return Lesion(
        label=label,
        x=float(np.clip(x, 0.15, 0.85)),
        y=float(np.clip(y, 0.15, 0.85)),
        area=float(np.clip(area, 0.008, 0.55)),
        elongation=float(
            rng.uniform(1, 1.12) if shape == "round" else rng.uniform(1.12, 2)
        ),
        angle=float(rng.uniform(0, np.pi)),
        shape=shape,
        irregularity=float(rough),
        softness=float(np.clip(0.1 * np.exp(0.7 * rng.standard_normal()), 0.02, 0.5)),
        grain=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class _Wall:
    """The mucosa as a relief: height and darkness of the lumen, (px, px)."""

    height: Plane
    lumen: Plane


def _colour(rng: np.random.Generator, names: dict[str, float]) -> Plane:
    name = str(rng.choice(list(names), p=list(names.values())))
    shade = np.asarray(COLOURS[name], np.float32) / 255
    apart = np.exp(0.05 * rng.standard_normal(3) + 0.08 * rng.standard_normal())
    return np.asarray(shade * apart, dtype=np.float32)


def _wall(rng: np.random.Generator, px: int) -> _Wall:
    """Hills, and folds that run round the lumen."""
    x, y = grid(px)
    hills, warp, partly, deep = clouds(rng, px, 2.6, n=4)
    away_x, away_y = rng.uniform(-0.1, 1.1, 2)
    squash = np.exp(rng.normal(0, 0.3))
    away = np.hypot((x - away_x) * squash, (y - away_y) / squash) + 0.05 * warp
    away = np.maximum(away, 0.02)
    height = rng.uniform(0.01, 0.07) * hills
    if chance(rng, 0.65):
        turns = rng.uniform(6, 16) * np.sqrt(away) + rng.uniform(0.2, 0.7) * deep
        fold = np.abs(np.sin(turns)) ** rng.uniform(0.5, 1.2)
        amount = rng.uniform(0.04, 0.16) * ramp(partly, -1.8, 0.8)
        height = height + amount * (1 - fold) * np.minimum(away * 2, 1)
    height = height + rng.uniform(0, 0.0012) * band(rng, px, rng.uniform(8, 20))
    lumen = np.zeros((px, px), np.float32)
    if chance(rng, 0.6):
        reach = rng.uniform(0.1, 0.4)
        lumen = ramp(away, reach * rng.uniform(1.1, 2), reach * rng.uniform(0, 0.8))
        lumen = lumen * rng.uniform(0.4, 0.88)
    return _Wall(np.asarray(height, np.float32), np.asarray(lumen, np.float32))


def _dome(rng: np.random.Generator, region: Region, px: int) -> Plane:
    """Height of the polyp above the wall: a cap, knobbly in some."""
    inside = np.clip(region.distance / (region.radius * rng.uniform(0.7, 1.3)), 0, 1)
    cap = np.sqrt(np.maximum(inside * (2 - inside), 0)) * region.cover
    knobs = band(rng, px, max(rng.uniform(1.5, 4) / (2 * region.radius), 2), width=0.5)
    cap = cap * (1 + rng.choice([0.0, 0.04, 0.1]) * knobs)
    grains = band(rng, px, rng.uniform(14, 26), width=0.5) * rng.uniform(0, 0.0015)
    rise = region.radius * rng.uniform(0.25, 0.9)
    return np.asarray(rise * cap + grains * region.cover, dtype=np.float32)


def _albedo(
    rng: np.random.Generator, px: int, mucosa: Plane, region: Region
) -> tuple[Plane, list[str]]:
    """Colour of mucosa and polyp under even light, (px, px, 3), and what is in it."""
    blotch, patch, grain = clouds(rng, px, 1.2, n=3)
    canvas = mucosa * (1 + rng.uniform(0.01, 0.05) * grain)[..., None]
    redder = (rng.uniform(0.01, 0.08) * blotch)[..., None]
    canvas = canvas * (1 - redder * np.array([0.15, 1, 1], np.float32))
    names = []
    if chance(rng, 0.55):
        lines = threads(rng, px, rng.uniform(4, 9), rng.uniform(4, 10))
        lines = lines * ramp(patch, -0.5, 1) * rng.uniform(0.15, 0.5)
        canvas = canvas * (
            1 - lines[..., None] * np.array([0.25, 0.7, 0.6], np.float32)
        )
        names.append("vessels")
    if chance(rng, 0.15):  # remains of stool and bile
        stain = ramp(cloud(rng, px, 1.3), 1, 2)[..., None] * rng.uniform(0.3, 0.8)
        canvas = canvas * (1 - stain) + stain * np.array([0.72, 0.55, 0.2], np.float32)
        names.append("bile")
    polyp = mucosa + rng.uniform(0, 0.75) * (_colour(rng, _POLYP) - mucosa)
    mottle = band(rng, px, rng.uniform(9, 22), width=0.5)
    pits = rng.uniform(0, 0.07) * mottle + rng.uniform(0.02, 0.08) * patch
    fill = polyp * (1 - pits[..., None] * np.array([0.5, 1, 1], np.float32))
    canvas = canvas + region.cover[..., None] * (fill - canvas)
    return np.asarray(np.clip(canvas, 0.02, 1.1), np.float32), names


def _lit(
    rng: np.random.Generator, albedo: Plane, height: Plane, lumen: Plane
) -> tuple[Plane, Plane]:
    """Shade a wet relief: (canvas, mirror light (px, px))."""
    px = height.shape[0]
    x, y = grid(px)
    slope_y, slope_x = np.gradient(height * px)
    # Slopes at a polyp's foot are steep; unbounded they would turn to black rings.
    steep = np.hypot(slope_x, slope_y) + 1e-6
    tame = 1.1 * np.tanh(steep / 1.1) / steep
    slope_x, slope_y = slope_x * tame, slope_y * tame
    norm = np.sqrt(1 + slope_x**2 + slope_y**2)
    lamp_x, lamp_y = rng.normal(0.5, 0.25, 2)
    light_x, light_y, light_z = (
        (lamp_x - x) * 1.2,
        (lamp_y - y) * 1.2,
        rng.uniform(0.5, 0.9),
    )
    reach = np.sqrt(light_x**2 + light_y**2 + light_z**2)
    facing = (-slope_x * light_x - slope_y * light_y + light_z) / (norm * reach)
    diffuse = np.maximum(facing, 0)
    ambient = rng.uniform(0.15, 0.4)
    fall = (light_z / reach) ** rng.uniform(0, 1.5)
    level = rng.uniform(1, 1.4) * (ambient + (1 - ambient) * diffuse) * fall
    level = level * (1 - lumen)
    if chance(rng, 0.35):  # the wall next to the lamp is overexposed
        turn = rng.uniform(0, 2 * np.pi)
        edge = (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn)
        edge = edge + 0.04 * cloud(rng, px, 2.2)
        level = level + rng.uniform(0.5, 2) * ramp(edge, 0.2, rng.uniform(0.4, 0.6))
    # Shade is filled by light from the wall itself, which is red.
    shade = np.maximum(level, 1e-3)[..., None] ** np.array([0.8, 1, 1.08], np.float32)
    canvas = albedo * shade
    over = np.maximum(canvas - 0.85, 0)
    # What one channel cannot hold spills as white: red saturates first.
    canvas = canvas - 0.6 * over + 0.45 * over.mean(axis=2, keepdims=True)
    mirror = (np.maximum(facing, 0) ** 8) * (1 - lumen)
    return np.asarray(canvas, np.float32), np.asarray(mirror, np.float32)


def paint(lesion: Lesion, rng: np.random.Generator, px: int) -> Painting:
    """Paint the polyp on a wall of mucosa, lit and framed as a scope shows it."""
    own = np.random.default_rng(lesion.grain)
    visible, ink, border = frame(rng, px)
    region = outline(lesion, own, px, visible, ragged=0)
    wall = _wall(own, px)
    mucosa = _colour(own, _MUCOSA)
    albedo, names = _albedo(own, px, mucosa, region)
    bump = _dome(own, region, px)
    height = wall.height * (1 - 0.7 * region.cover) + bump
    lumen = wall.lumen * (1 - region.cover)
    # A polyp stands nearer to the lamp than the wall behind it.
    albedo_near = albedo * (1 + own.uniform(0, 0.5) * region.cover)[..., None]
    canvas, mirror = _lit(rng, albedo_near, height, lumen)
    foot = ramp(region.distance, -0.25 * region.radius, 0) * (1 - region.cover)
    canvas = canvas * (1 - own.uniform(0, 0.4) * foot)[..., None]
    colours = mean_colours(np.clip(canvas, 0, 1), region)
    painted = mean_colours(albedo, region)[0]
    if chance(rng, 0.85):
        glints = band(
            rng, px, rng.uniform(6, 18), width=0.6, stretch=rng.uniform(0.6, 1.6)
        )
        glints = glints + 0.8 * cloud(rng, px, 1.6) + 2.2 * (mirror - 0.6)
        glints = ramp(glints, rng.uniform(2, 3), 3.4)[..., None]
        canvas = canvas * (1 - glints) + glints * np.array([1, 0.98, 0.95], np.float32)
        names.append("highlights")
    canvas = np.clip(canvas, 0, 1) * visible[..., None]
    canvas = canvas + border * (1 - visible[..., None])
    canvas = np.maximum(canvas, 0.85 * ink[..., None])
    return Painting(
        canvas=np.asarray(canvas, np.float32),
        mask=region.mask,
        drawn=describe(
            lesion,
            region,
            colours,
            colour=nearest(painted, COLOURS),
            tone=nearest(mucosa, {name: COLOURS[name] for name in _MUCOSA}),
            texture=tuple(names),
        ),
    )
