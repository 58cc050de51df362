"""A mass in ultrasound: its echoes, its rim, and what it does to the beam behind it."""

import numpy as np

from vgmedgen.data.phantom_noise import Plane, band, cloud, ramp
from vgmedgen.data.phantom_outline import Lesion, Region

# Echo of the mass relative to its surround, and how likely it is in each class.
_ECHOES: dict[str, tuple[float, float]] = {
    "anechoic": (0.03, 0.15),
    "hypoechoic": (0.22, 0.6),
    "isoechoic": (0.6, 0.9),
    "hyperechoic": (1.3, 1.8),
}
_SHARES: dict[str, tuple[float, float, float, float]] = {
    "benign": (0.17, 0.58, 0.2, 0.05),
    "malignant": (0.05, 0.8, 0.15, 0.0),
}


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
    ring = ((region.distance > -0.12) & (region.mask == 0) & (region.visible > 0)).sum()
    near = (echo * ((region.distance > -0.12) & (region.mask == 0))).sum() / max(ring, 1)
    level = max(float(near), 0.15) * rng.uniform(*_ECHOES[word])
    inner = 0.25 * cloud(rng, px, 1.0) + 0.2 * band(rng, px, rng.uniform(6, 16), width=0.5)
    inner = level * np.clip(1 + rng.uniform(0.4, 1.6) * inner, 0.1, 2.5)
    inner = inner * (1 - rng.uniform(0, 0.5) * ramp(region.distance / region.radius, 0, 0.8))
    marks = [word]
    if malignant and rng.random() < 0.3:
        dots = ramp(band(rng, px, rng.uniform(14, 22), width=0.3), 1.9, 2.6)
        inner = inner + 0.6 * dots
        marks.append("calcifications")
    if rng.random() < 0.5:  # a halo of thickened tissue, or a thin capsule
        width = rng.uniform(0.04, 0.12) if malignant else rng.uniform(0.008, 0.02)
        rim = np.exp(-np.square((region.distance + width) / width))
        echo = echo + rng.uniform(0.08, 0.35) * rim * (1 - region.cover)
        marks.append("halo" if malignant else "capsule")
    mixed = echo + region.cover * (inner - echo)
    behind = _behind(region)
    if rng.random() < (0.6 if malignant else 0.15):
        mixed = mixed * (1 - rng.uniform(0.3, 0.9) * behind)
        marks.append("shadow")
    elif rng.random() < (0.15 if malignant else 0.55):
        mixed = mixed * (1 + rng.uniform(0.2, 0.9) * behind)
        marks.append("enhancement")
    return np.maximum(mixed, 0).astype(np.float32), word, tuple(marks)
