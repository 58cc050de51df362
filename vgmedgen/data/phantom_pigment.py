"""What fills a skin lesion: pigments, structures, and how each class uses them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vgmedgen.data.phantom_noise import (
    Plane,
    band,
    chance,
    cloud,
    fineness,
    ramp,
    threads,
)
from vgmedgen.data.phantom_outline import Lesion, Region

# Names of lesion colours, 0 to 255.
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (46, 34, 36),
    "dark brown": (88, 52, 40),
    "brown": (136, 82, 58),
    "light brown": (180, 126, 94),
    "tan": (205, 166, 128),
    "pink": (208, 146, 148),
    "red": (178, 74, 82),
    "magenta": (168, 34, 88),
    "purple": (112, 58, 98),
    "blue-grey": (108, 104, 126),
    "blue-black": (44, 42, 60),
    "white": (234, 216, 212),
}


@dataclass(frozen=True, kw_only=True)
class _Look:
    """How a class is filled: main pigments, accents, structures, opacity range."""

    main: dict[str, float]
    accents: dict[str, float]  # probability of each, in patches
    structures: dict[str, float]  # probability of each
    opacity: tuple[float, float]


_LOOKS = {
    "nv": _Look(
        main={"brown": 0.45, "light brown": 0.25, "dark brown": 0.2, "pink": 0.1},
        accents={"dark brown": 0.35, "light brown": 0.2, "black": 0.06},
        structures={"network": 0.5, "globules": 0.3, "dark centre": 0.45},
        opacity=(0.55, 1),
    ),
    "mel": _Look(
        main={"brown": 0.35, "dark brown": 0.35, "light brown": 0.2, "pink": 0.1},
        accents={
            "black": 0.6,
            "blue-grey": 0.4,
            "dark brown": 0.5,
            "red": 0.25,
            "white": 0.2,
        },
        structures={"network": 0.45, "globules": 0.4, "streaks": 0.4},
        opacity=(0.6, 1),
    ),
    "bkl": _Look(
        main={"light brown": 0.35, "brown": 0.3, "tan": 0.25, "blue-black": 0.1},
        accents={"brown": 0.35, "dark brown": 0.25, "tan": 0.3},
        structures={"milia": 0.4, "globules": 0.35, "streaks": 0.2, "network": 0.2},
        opacity=(0.4, 1),
    ),
    "bcc": _Look(
        main={"pink": 0.7, "red": 0.15, "light brown": 0.15},
        accents={
            "blue-grey": 0.4,
            "red": 0.35,
            "brown": 0.3,
            "black": 0.15,
            "white": 0.2,
        },
        structures={"vessels": 0.5, "milia": 0.15, "globules": 0.25},
        opacity=(0.35, 0.85),
    ),
    "akiec": _Look(
        main={"pink": 0.55, "red": 0.35, "light brown": 0.1},
        accents={"red": 0.4, "white": 0.35, "brown": 0.25, "light brown": 0.25},
        structures={"vessels": 0.5, "scale": 0.4, "globules": 0.3},
        opacity=(0.3, 0.8),
    ),
    "vasc": _Look(
        main={"magenta": 0.4, "red": 0.3, "purple": 0.2, "blue-black": 0.1},
        accents={"purple": 0.3, "magenta": 0.25, "black": 0.12, "pink": 0.15},
        structures={"globules": 0.5, "milia": 0.15, "dark centre": 0.3},
        opacity=(0.65, 1),
    ),
    "df": _Look(
        main={"light brown": 0.4, "pink": 0.45, "brown": 0.15},
        accents={"pink": 0.3, "purple": 0.1},
        structures={"pale centre": 0.6, "network": 0.5, "dark centre": 0.15},
        opacity=(0.4, 0.8),
    ),
}

Structure = Callable[[Region, np.random.Generator, int], tuple[Plane, str]]


def _cycles(region: Region, across: float) -> float:
    """Frequency that repeats `across` times over the lesion's width, at least 5."""
    return max(across / (2.5 * region.radius), 5)


def _network(region: Region, rng: np.random.Generator, px: int) -> tuple[Plane, str]:
    mesh = threads(rng, px, _cycles(region, rng.uniform(14, 26)), 1.4, width=0.35)
    patch = ramp(cloud(rng, px, 1.6), -1.5, 0.8)
    return (mesh - 0.3) * patch * rng.uniform(0.3, 0.8), "darken"


def _globules(region: Region, rng: np.random.Generator, px: int) -> tuple[Plane, str]:
    dots = band(rng, px, _cycles(region, rng.uniform(9, 22)), width=0.45)
    patch = ramp(cloud(rng, px, 1.6), -1, 1)
    return ramp(dots, 0.5, 1.8) * patch * rng.uniform(0.4, 1), "darken"


def _streaks(region: Region, rng: np.random.Generator, px: int) -> tuple[Plane, str]:
    furrows = band(rng, px, _cycles(region, rng.uniform(4, 8)), width=0.5)
    return furrows * rng.uniform(0.12, 0.4), "darken"


def _vessels(region: Region, rng: np.random.Generator, px: int) -> tuple[Plane, str]:
    lines = threads(rng, px, _cycles(region, rng.uniform(4, 8)), 4, width=0.7)
    return lines * rng.uniform(0.3, 0.8), "red"


def _milia(region: Region, rng: np.random.Generator, px: int) -> tuple[Plane, str]:
    dots = band(rng, px, _cycles(region, rng.uniform(8, 14)), width=0.25)
    return ramp(dots, 1.5, 2.2) * rng.uniform(0.4, 0.9), "white"


def _scale(region: Region, rng: np.random.Generator, px: int) -> tuple[Plane, str]:
    flakes = band(rng, px, _cycles(region, rng.uniform(5, 10)), width=0.7)
    patch = ramp(cloud(rng, px, 1.6), -0.2, 1)
    return ramp(flakes, 0.5, 1.6) * patch * rng.uniform(0.4, 0.9), "white"


def _dark_centre(
    region: Region, rng: np.random.Generator, px: int
) -> tuple[Plane, str]:
    depth = region.distance / region.radius + 0.15 * cloud(rng, px, 1.8)
    return ramp(depth, 0.1, 0.9) * rng.uniform(0.3, 0.8), "darken"


def _pale_centre(
    region: Region, rng: np.random.Generator, px: int
) -> tuple[Plane, str]:
    depth = region.distance / region.radius + 0.12 * cloud(rng, px, 1.5)
    return ramp(depth, 0.3, 0.8) * rng.uniform(0.3, 0.8), "white"


_STRUCTURES: dict[str, Structure] = {
    "network": _network,
    "globules": _globules,
    "streaks": _streaks,
    "vessels": _vessels,
    "milia": _milia,
    "scale": _scale,
    "dark centre": _dark_centre,
    "pale centre": _pale_centre,
}


def _pigment(rng: np.random.Generator, name: str) -> Plane:
    """One bearer's shade of a named colour, (3,) in [0, 1]."""
    shade = np.asarray(COLOURS[name], dtype=np.float32) / 255
    together = np.exp(0.1 * rng.standard_normal())
    apart = 1 + 0.04 * rng.standard_normal(3)
    return np.asarray(shade * together * apart, dtype=np.float32)


def paint_lesion(
    canvas: Plane, lesion: Lesion, region: Region, rng: np.random.Generator
) -> tuple[Plane, tuple[str, ...]]:
    """Paint the lesion over skin.

    Args:
        canvas: Skin, (px, px, 3) in [0, 1].
        lesion: The plan.
        region: Where it lies.
        rng: The lesion's own source, so that it can be painted again.

    Returns:
        The new canvas, and the names of the structures drawn.
    """
    px = canvas.shape[0]
    look = _LOOKS[lesion.label]
    main = str(rng.choice(list(look.main), p=list(look.main.values())))
    opacity = rng.uniform(*look.opacity)
    # The pigment filters the light that the skin sends back: on darker skin the
    # same lesion is darker.
    skin = canvas.mean((0, 1))
    under = np.minimum(0.35 + 0.65 * skin / np.float32(0.72), 1.1)
    fill = np.broadcast_to(_pigment(rng, main) * under, canvas.shape)
    marks = []
    for name, share in look.accents.items():
        if chance(rng, share):
            patch = ramp(cloud(rng, px, 1.6), *np.sort(rng.uniform(-0.5, 1.6, 2)))
            patch = patch * rng.uniform(0.4, 1)
            fill = fill + patch[..., None] * (_pigment(rng, name) * under - fill)
            marks.append(name)
    for name, share in look.structures.items():
        if chance(rng, share):
            amount, how = _STRUCTURES[name](region, rng, px)
            if how == "darken":
                fill = fill * (1 - 0.55 * amount[..., None])
            else:
                ink = COLOURS["white" if how == "white" else "red"]
                gap = np.asarray(ink, dtype=np.float32) / 255 * under - fill
                fill = fill + amount[..., None] * gap
            marks.append(name)
    grain = 1 + rng.uniform(0.05, 0.2) * fineness(px) * cloud(rng, px, 0.7)
    # Pigment thins towards the border in some, and is uneven in all.
    thin = 1 - rng.uniform(0, 0.5) * ramp(region.distance / region.radius, 0.6, 0)
    uneven = thin + rng.uniform(0.03, 0.25) * cloud(rng, px, 1.2)
    uneven = np.clip(uneven, 0.15, 1.15)
    cover = np.clip(region.cover * opacity * uneven, 0, 1)[..., None]
    painted = canvas + cover * (fill * grain[..., None] - canvas)
    return np.clip(painted, 0, 1).astype(np.float32), tuple(marks)
