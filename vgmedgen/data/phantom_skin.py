"""Dermoscopy-like phantoms: skin, hair, lamp, and a pigmented or vascular lesion."""

from dataclasses import replace

import numpy as np

from vgmedgen.data.phantom_noise import (
    Plane,
    band,
    chance,
    cloud,
    clouds,
    fineness,
    grid,
    ramp,
    threads,
)
from vgmedgen.data.phantom_outline import Lesion, outline
from vgmedgen.data.phantom_pigment import COLOURS, paint_lesion
from vgmedgen.data.phantom_strokes import hairs
from vgmedgen.data.phantom_truth import Painting, describe, mean_colours, nearest

SHARES = {
    "nv": 0.32,
    "mel": 0.17,
    "bkl": 0.14,
    "bcc": 0.12,
    "akiec": 0.1,
    "vasc": 0.08,
    "df": 0.07,
}

# Median area share, spread of its logarithm, and how likely each shape word is.
_HABIT: dict[str, tuple[float, float, dict[str, float]]] = {
    "nv": (
        0.2,
        0.85,
        {"round": 0.35, "oval": 0.45, "lobulated": 0.1, "irregular": 0.1},
    ),
    "mel": (0.36, 0.6, {"irregular": 0.7, "lobulated": 0.15, "oval": 0.15}),
    "bkl": (0.28, 0.7, {"irregular": 0.35, "oval": 0.35, "lobulated": 0.3}),
    "bcc": (0.24, 0.7, {"irregular": 0.55, "oval": 0.3, "round": 0.15}),
    "akiec": (0.35, 0.5, {"irregular": 0.6, "oval": 0.3, "round": 0.1}),
    "vasc": (0.1, 0.8, {"round": 0.4, "oval": 0.35, "lobulated": 0.25}),
    "df": (0.26, 0.6, {"round": 0.55, "oval": 0.4, "irregular": 0.05}),
}
_SOFT = {"akiec": 0.45, "bcc": 0.4, "df": 0.5, "mel": 0.22, "vasc": 0.12}
_AGE = {"nv": 45, "mel": 60, "bkl": 65, "bcc": 67, "akiec": 67, "vasc": 52, "df": 52}
_PLACES = (
    ("back", 0.23),
    ("lower extremity", 0.21),
    ("trunk", 0.14),
    ("upper extremity", 0.12),
    ("abdomen", 0.11),
    ("face", 0.08),
    ("chest", 0.05),
    ("foot", 0.03),
    ("neck", 0.02),
    ("scalp", 0.01),
)

_FAIR, _DARK = 0.62, 0.45  # brightness of the skin between the words of its tone


def plan(rng: np.random.Generator, label: str) -> Lesion:
    """Decide a lesion of the class `label` (one of `SHARES`)."""
    median, spread, shapes = _HABIT[label]
    shape = str(rng.choice(list(shapes), p=list(shapes.values())))
    x, y = np.clip(rng.normal(0.495, 0.035, 2), 0.35, 0.65)
    area = float(np.clip(median * np.exp(spread * rng.standard_normal()), 0.012, 0.82))
    if chance(rng, 0.35):  # off-centre more often than a clinic would photograph it
        x, y = rng.uniform(0.15, 0.85, 2)
        area = min(area, float(rng.uniform(0.03, 0.25)))
    rough = rng.uniform(0.35, 1) if shape == "irregular" else rng.uniform(0, 0.35)
    soft = _SOFT.get(label, 0.2) * np.exp(0.6 * rng.standard_normal())
    return Lesion(
        label=label,
        x=float(x),
        y=float(y),
        area=area,
        elongation=float(
            rng.uniform(1, 1.12) if shape == "round" else rng.uniform(1.12, 2)
        ),
        angle=float(rng.uniform(0, np.pi)),
        shape=shape,
        irregularity=float(rough),
        softness=float(np.clip(soft, 0.02, 0.85)),
        grain=int(rng.integers(2**31)),
    )


def again(lesion: Lesion, rng: np.random.Generator) -> Lesion:
    """The same lesion as a second photograph would meet it."""
    x, y = rng.normal(0, 0.03, 2)
    return replace(
        lesion,
        x=float(np.clip(lesion.x + x, 0.12, 0.88)),
        y=float(np.clip(lesion.y + y, 0.12, 0.88)),
        area=float(np.clip(lesion.area * np.exp(rng.normal(0, 0.15)), 0.01, 0.85)),
        angle=lesion.angle + float(rng.normal(0, 0.3)),
    )


def facts(rng: np.random.Generator, label: str) -> dict[str, str]:
    """Draw the bearer's columns of the HAM10000 table: dx_type, age, sex, place."""
    names, shares = zip(*_PLACES, strict=True)
    age = 5 * round(float(np.clip(rng.normal(_AGE[label], 15), 5, 85)) / 5)
    how = rng.choice(["histo", "follow_up", "consensus"], p=[0.4, 0.45, 0.15])
    return {
        "dx_type": str(how) if label == "nv" else "histo",
        "age": f"{age:.1f}",
        "sex": str(rng.choice(["male", "female"])),
        "localization": str(rng.choice(names, p=shares)),
    }


def _tone(bearer: np.random.Generator) -> Plane:
    """Skin colour (3,), from very fair to dark."""
    if chance(bearer, 0.09):
        red = bearer.uniform(0.38, 0.66)
        ratio = np.array([1, bearer.uniform(0.62, 0.78), bearer.uniform(0.48, 0.72)])
        return np.asarray(red * ratio, dtype=np.float32)
    red = np.clip(bearer.normal(0.83, 0.085), 0.58, 0.99)
    green = red - np.clip(bearer.normal(0.18, 0.06), 0.04, 0.34)
    blue = green + np.clip(bearer.normal(0.025, 0.06), -0.14, 0.14)
    return np.array([red, green, blue], dtype=np.float32)


def tone_name(skin: Plane) -> str:
    """Fair, medium or dark, by brightness of the skin colour (3,) in [0, 1]."""
    brightness = float(skin @ np.array([0.299, 0.587, 0.114], dtype=np.float32))
    return "fair" if brightness > _FAIR else "medium" if brightness > _DARK else "dark"


def _skin(rng: np.random.Generator, px: int, tone: Plane) -> Plane:
    hills, blush, lines = clouds(rng, px, 1.4, n=3)
    canvas = tone * (1 + 0.025 * rng.uniform(0.3, 1.4) * hills)[..., None]
    redness = rng.uniform(0.005, 0.06) * blush
    canvas = canvas * (1 - redness[..., None] * np.array([0.1, 1, 0.7], np.float32))
    pores = band(rng, px, rng.uniform(12, 30), width=0.35)
    fine = 0.4 * pores + 0.6 * cloud(rng, px, 0.7)
    weight = (
        rng.uniform(0.008, 0.05)
        * fineness(px)
        * np.array([0.75, 1.05, 1.25], np.float32)
    )
    canvas = canvas + fine[..., None] * weight
    if chance(rng, 0.25):  # a net of small vessels, common on sun-damaged skin
        net = threads(rng, px, rng.uniform(7, 14), 2.2)
        net = net * ramp(lines, -0.3, 1.2) * rng.uniform(0.1, 0.35)
        canvas = canvas + net[..., None] * np.array([-0.05, -0.4, -0.32], np.float32)
    if chance(rng, 0.25):  # freckles
        spots = ramp(band(rng, px, rng.uniform(5, 12), width=0.4), 1.6, 2.3)
        spots = spots * rng.uniform(0.1, 0.4)
        canvas = canvas * (1 - spots[..., None] * np.array([0.3, 0.5, 0.6], np.float32))
    return np.asarray(canvas, dtype=np.float32)


def _lamp(rng: np.random.Generator, px: int, canvas: Plane) -> Plane:
    """Light that falls off, and the dark rim of the lens in some devices."""
    x, y = grid(px)
    tilt, tip = rng.normal(0, 0.05, 2)
    fall = rng.uniform(0, 0.45) * (np.square(x - 0.5) + np.square(y - 0.5))
    light = 1 + tilt * (x - 0.5) + tip * (y - 0.5) - fall
    canvas = canvas * light[..., None].astype(np.float32)
    if chance(rng, 0.22):
        # Images are 4:3 squeezed to a square: the round rim stands as an ellipse.
        off_x, off_y = rng.normal(0, 0.03, 2)
        reach = rng.uniform(0.52, 0.68)
        away = np.hypot((x - 0.5 - off_x) / reach, (y - 0.5 - off_y) / (reach * 4 / 3))
        open_share = ramp(away.astype(np.float32), 1.04, 1.04 - rng.uniform(0.04, 0.15))
        rim = rng.uniform(0.02, 0.12) * np.array([1, 0.85, 0.9], np.float32)
        canvas = canvas * open_share[..., None] + rim * (1 - open_share[..., None])
    return canvas


def paint(lesion: Lesion, rng: np.random.Generator, px: int) -> Painting:
    """Paint the lesion on its bearer's skin, photographed once more with `rng`."""
    bearer = np.random.default_rng(lesion.grain)
    tone = _tone(bearer)
    furry = chance(bearer, 0.35)
    canvas = _skin(rng, px, tone)
    region = outline(lesion, bearer, px)
    canvas, marks = paint_lesion(canvas, lesion, region, bearer)
    colours = mean_colours(canvas, region)
    texture = list(marks)
    if furry:
        blond = chance(rng, 0.2)
        count = int(rng.integers(20, 50) if chance(rng, 0.15) else rng.integers(2, 18))
        strand = hairs(rng, px, count, rng.uniform(0.004, 0.012)) * rng.uniform(
            0.5, 0.95
        )
        hue = np.array([0.8, 0.7, 0.55] if blond else [0.16, 0.1, 0.1], np.float32)
        canvas = canvas * (1 - strand[..., None]) + hue * strand[..., None]
        texture.append("hair")
    if chance(rng, 0.2):  # bubbles and scales that mirror the lamp
        shine = ramp(band(rng, px, rng.uniform(14, 22), width=0.5), 2.2, 3.0)
        shine = shine * ramp(cloud(rng, px, 1.5), 0, 1.5) * rng.uniform(0.3, 0.9)
        canvas = canvas * (1 - shine[..., None]) + shine[..., None]
    return Painting(
        canvas=np.clip(_lamp(rng, px, canvas), 0, 1),
        mask=region.mask,
        drawn=describe(
            lesion,
            region,
            colours,
            colour=nearest(colours[0], COLOURS),
            tone=tone_name(tone),
            texture=tuple(texture),
        ),
    )
