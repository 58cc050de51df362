"""A lesion's plan, and the region of the image that it covers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vgmedgen.data.phantom_noise import Plane, cloud, grid, ramp

SHAPES = ("round", "oval", "lobulated", "irregular", "spiculated")

_ANGLES = 256  # samples of a radius profile; enough for the 16th harmonic


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """What is decided about a lesion before anything is painted.

    Attributes:
        label: Class of the real dataset.
        x: Where the outline is centred, from left, 0 to 1.
        y: From the top.
        area: Share of the image that the visible part covers, exact to a pixel.
        elongation: Long axis over short axis.
        angle: Of the long axis, radians.
        shape: One of `SHAPES`.
        irregularity: Roughness of the outline, 0 to 1.
        softness: Width of the border's fade as a share of the radius, 0 to 1.
        grain: Seed of everything that belongs to the lesion and its bearer (outline,
            pigments, skin tone), so that it can be drawn again in another image.
    """

    label: str
    x: float
    y: float
    area: float
    elongation: float
    angle: float
    shape: str
    irregularity: float
    softness: float
    grain: int


@dataclass(frozen=True, kw_only=True)
class Region:
    """A drawn outline, planes (px, px).

    Attributes:
        mask: uint8, 1 inside.
        cover: Opacity of the lesion: the mask with its soft border.
        distance: Signed distance from the border in image sides, positive inside;
            exact near the border of smooth shapes only.
        visible: 1 where the frame shows tissue.
        radius: Of the disc of the same area, in image sides.
    """

    mask: NDArray[np.uint8]
    cover: Plane
    distance: Plane
    visible: Plane
    radius: float

    @property
    def area(self) -> float:
        """Share of the image inside."""
        return float(self.mask.mean())

    @property
    def centre(self) -> tuple[float, float]:
        """Centroid (x, y), 0 to 1."""
        x, y = grid(self.mask.shape[0])
        total = max(int(self.mask.sum()), 1)
        return float((x * self.mask).sum()) / total, float(
            (y * self.mask).sum()
        ) / total


def _profile(lesion: Lesion, rng: np.random.Generator) -> Plane:
    """Radius over the angle (_ANGLES,), about 1."""
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    order = np.arange(2, 10)
    phase = rng.uniform(0, 2 * np.pi, order.size)
    weight = rng.standard_normal(order.size) / order
    waves = (weight[:, None] * np.cos(order[:, None] * angle + phase[:, None])).sum(0)
    profile = 1 + 0.5 * lesion.irregularity * waves
    if lesion.shape == "lobulated":
        lobes = int(rng.integers(2, 6))
        bulge = np.abs(np.cos(lobes / 2 * angle + rng.uniform(0, np.pi)))
        profile += rng.uniform(0.2, 0.5) * (bulge - 0.6)
    if lesion.shape == "spiculated":
        spikes = np.cos(rng.integers(7, 13) * angle + 2.5 * waves + phase[0])
        profile += rng.uniform(0.15, 0.4) * (np.maximum(spikes, 0) ** 2 - 0.25)
    return np.asarray(np.maximum(profile, 0.3), dtype=np.float32)


def outline(
    lesion: Lesion,
    rng: np.random.Generator,
    px: int,
    visible: Plane | None = None,
    *,
    ragged: float = 1,
) -> Region:
    """Draw the lesion's outline.

    A level set of (distance over radius profile) plus smooth noise; the level is chosen
    so that the visible part has the area asked for.

    Args:
        lesion: The plan.
        rng: Source of the outline's details.
        px: Side in pixels.
        visible: (px, px), 0 where the frame hides the tissue; None shows all.
        ragged: Factor of the border's fine roughness; 0 for a smooth solid body.
    """
    x, y = grid(px)
    shown = np.ones((px, px), np.float32) if visible is None else visible
    cosine, sine = np.cos(lesion.angle), np.sin(lesion.angle)
    stretch = np.sqrt(lesion.elongation)
    along = ((x - lesion.x) * cosine + (y - lesion.y) * sine) / stretch
    across = ((y - lesion.y) * cosine - (x - lesion.x) * sine) * stretch
    turn = np.arctan2(across, along) * (_ANGLES / (2 * np.pi))
    profile = _profile(lesion, rng)
    radius = float(np.sqrt(lesion.area / np.pi))
    field = np.hypot(along, across) / profile[turn.astype(np.int64) % _ANGLES]
    rough = {"round": 0.15, "oval": 0.15}.get(lesion.shape, 0.22) * lesion.irregularity
    bays, teeth = cloud(rng, px, 1.6 + 0.6 * (ragged == 0)), cloud(rng, px, 0.9)
    field = field / radius + rough * bays + ragged * (0.015 + 0.2 * rough) * teeth
    level = np.where(shown > 0, field, np.inf).ravel()
    wanted = min(max(round(lesion.area * px * px), 4), int((shown > 0).sum()) - 1)
    edge = float(np.partition(level, wanted)[wanted])
    distance = ((edge - field) * radius).astype(np.float32)
    fade = max(lesion.softness * radius, 0.6 / px)
    return Region(
        mask=((distance > 0) & (shown > 0)).astype(np.uint8),
        cover=ramp(distance, -fade, fade) * shown,
        distance=distance,
        visible=shown,
        radius=radius,
    )
