"""A mass in ultrasound: its echoes, its rim, and what it does to the beam behind it."""

import numpy as np

from vgmedgen.data.phantom_noise import Plane, band, chance, cloud, fineness, ramp
from vgmedgen.data.phantom_outline import Lesion, Region

# Echo of the mass relative to its surround, and how likely it is in each class.
_ECHOES: dict[str, tuple[float, float]] = {
    "anechoic": (0.03, 0.15),
    "hypoechoic": (0.28, 0.65),
    "isoechoic": (0.65, 0.95),
    "hyperechoic": (1.3, 1.8),
}
_SHARES: dict[str, tuple[float, float, float, float]] = {
    "benign": (0.17, 0.58, 0.2, 0.05),
    "malignant": (0.05, 0.8, 0.15, 0.0),
}

_NEAR = 0.12  # image sides round the mass that count as its surround


def _behind(region: Region) -> Plane:
    """1 in the columns behind the mass, fading sideways and with depth."""
    deep = np.cumsum(region.cover, axis=0)
    deepest = deep.max(axis=0)
    passed = deep / (deepest + 1e-6) * np.minimum(deepest / (deepest.max() + 1e-6), 1)
    return np.asarray(passed * (1 - region.cover), dtype=np.float32)


def paint_mass(
    echo: Plane, lesion: Lesion, region: Region, rng: np.random.Generator
) -> tuple[Plane, str, tuple[str, ...]]:
    """Put a mass into tissue.

    Args:
        echo: Echoes of the tissue, (px, px).
        lesion: The plan; benign and malignant masses behave differently.
        region: Where the mass lies.
        rng: The lesion's own source.

    Returns:
        The echoes with the mass, the name of its echogenicity, and the names of the
        signs drawn.
    """
    px = echo.shape[0]
    malignant = lesion.label == "malignant"
    word = str(rng.choice(list(_ECHOES), p=_SHARES[lesion.label]))
    near = (region.distance > -_NEAR) * (1 - region.mask) * region.visible
    beside = float((echo * near).sum()) / max(float(near.sum()), 1)
    level = max(beside, 0.15) * rng.uniform(*_ECHOES[word])
    inner = 0.2 * cloud(rng, px, 0.8) + 0.13 * band(
        rng, px, rng.uniform(6, 16), width=0.7
    )
    inner = level * np.clip(1 + rng.uniform(0.4, 1.6) * fineness(px) * inner, 0.1, 2.5)
    inner = inner * (
        1 - rng.uniform(0, 0.5) * ramp(region.distance / region.radius, 0, 0.8)
    )
    marks = [word]
    if malignant and chance(rng, 0.3):
        dots = ramp(band(rng, px, rng.uniform(14, 22), width=0.3), 1.9, 2.6)
        inner = inner + 0.35 * dots
        marks.append("calcifications")
    if chance(rng, 0.5):  # a halo of thickened tissue, or a thin capsule
        width = rng.uniform(0.04, 0.12) if malignant else rng.uniform(0.008, 0.02)
        rim = np.exp(-np.square((region.distance + width) / width))
        echo = echo + rng.uniform(0.08, 0.35) * rim * (1 - region.cover)
        marks.append("halo" if malignant else "capsule")
    mixed = echo + region.cover * (inner - echo)
    behind = _behind(region)
    if chance(rng, 0.6 if malignant else 0.15):
        mixed = mixed * (1 - rng.uniform(0.3, 0.9) * behind)
        marks.append("shadow")
    elif chance(rng, 0.15 if malignant else 0.55):
        mixed = mixed * (1 + rng.uniform(0.2, 0.9) * behind)
        marks.append("enhancement")
    return np.maximum(mixed, 0).astype(np.float32), word, tuple(marks)
