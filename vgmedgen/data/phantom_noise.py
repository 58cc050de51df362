"""Random fields that phantoms are painted with: clouds, bands, spots and warps.

Fields are made by filtering white noise in the Fourier domain, with frequencies in
cycles per image side, so that a field looks the same at every resolution.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]  # (px, px), or (n, px, px) where a function says so


def chance(rng: np.random.Generator, share: float) -> bool:
    """True in this share of draws."""
    return float(rng.random()) < share


@lru_cache(maxsize=16)
def grid(px: int) -> tuple[Plane, Plane]:
    """Pixel centres as (x, y), each (px, px), in [0, 1]; y points down."""
    line = (np.arange(px, dtype=np.float32) + 0.5) / px
    x: Plane = np.tile(line, (px, 1)).astype(np.float32)
    y: Plane = np.repeat(line, px).reshape(px, px).astype(np.float32)
    for plane in (x, y):
        plane.flags.writeable = False  # shared by every caller through the cache
    return x, y


@lru_cache(maxsize=256)
def _frequency(px: int, stretch: float) -> Plane:
    """Length of the frequency vector of each rfft2 bin, in cycles per side."""
    vertical = np.fft.fftfreq(px, 1 / px)[:, None]
    horizontal = np.fft.rfftfreq(px, 1 / px)[None, :] * stretch
    return np.asarray(np.hypot(vertical, horizontal), dtype=np.float32)


def _shaped(rng: np.random.Generator, px: int, gain: Plane, n: int) -> Plane:
    """White noise with the amplitude spectrum `gain`, (n, px, px)."""
    white = rng.standard_normal((n, px, px), dtype=np.float32)
    spectrum = np.fft.rfft2(white) * gain
    return np.asarray(np.fft.irfft2(spectrum, s=(px, px)), dtype=np.float32)


def _unit(gain: NDArray[np.floating], px: int) -> Plane:
    """Scale a gain so that filtered white noise has unit expected variance."""
    # rfft2 stores half of the plane: its inner columns count twice in the power.
    power = 2 * np.square(gain).sum() - np.square(gain[:, 0]).sum()
    return np.asarray(gain * (px / np.sqrt(power + 1e-12)), dtype=np.float32)


@lru_cache(maxsize=256)
def _slope_gain(px: int, slope: float, stretch: float) -> Plane:
    frequency = _frequency(px, stretch)
    gain = np.maximum(frequency, 0.5) ** -slope
    gain[0, 0] = 0
    return _unit(gain, px)


def clouds(
    rng: np.random.Generator, px: int, slope: float, *, stretch: float = 1, n: int = 1
) -> Plane:
    """Draw `n` fields (n, px, px) with amplitude 1/f**slope, zero mean, unit variance.

    Args:
        rng: Source of randomness.
        px: Side in pixels.
        slope: 0 is white, 1 is skin-like, 2 and above are smooth hills.
        stretch: Above 1 the structures lie down: longer along x by this factor.
        n: Number of independent fields.

    Slope and stretch count to one decimal, so that filters can be kept.
    """
    gain = _slope_gain(px, round(slope, 1), round(stretch, 1))
    return _shaped(rng, px, gain, n)


def cloud(
    rng: np.random.Generator, px: int, slope: float, *, stretch: float = 1
) -> Plane:
    """One field of `clouds`, (px, px)."""
    field: Plane = clouds(rng, px, slope, stretch=stretch)[0]
    return field


@lru_cache(maxsize=256)
def _band_gain(px: int, cycles: float, width: float, stretch: float) -> Plane:
    frequency = np.maximum(_frequency(px, stretch), 1e-3)
    gain = np.exp(-np.square(np.log(frequency / cycles)) / (2 * width**2))
    return _unit(np.asarray(gain, dtype=np.float32), px)


def band(
    rng: np.random.Generator,
    px: int,
    cycles: float,
    *,
    width: float = 0.3,
    stretch: float = 1,
) -> Plane:
    """One field (px, px) of blobs that repeat about `cycles` times per side.

    Args:
        rng: Source of randomness.
        px: Side in pixels; cycles above px/4 are lowered to what the grid can show.
        cycles: Blobs per side; rounded, so that filters can be kept.
        width: Spread of the band in log frequency; small is regular.
        stretch: As in `clouds`.
    """
    shown = float(round(max(min(cycles, px / 4), 1)))
    field: Plane = _shaped(rng, px, _band_gain(px, shown, width, round(stretch, 1)), 1)[
        0
    ]
    return field


def threads(
    rng: np.random.Generator,
    px: int,
    cycles: float,
    sharpness: float,
    *,
    width: float = 0.5,
    stretch: float = 1,
) -> Plane:
    """Draw winding lines (px, px): 1 on a line, 0 far from it.

    They run along the zero crossings of a `band`, two to a cycle, and are never
    thinner than the grid can show: a thinner line would break into dots.

    Args:
        rng: Source of randomness.
        px: Side in pixels.
        cycles: As in `band`.
        sharpness: How thin the lines are; 1 is a mesh without gaps.
        width: As in `band`.
        stretch: As in `clouds`.
    """
    shown = min(cycles, px / 6)
    thin = min(sharpness, px / (4.5 * shown))
    field = band(rng, px, shown, width=width, stretch=stretch)
    return np.asarray(np.exp(-np.square(field * thin)), dtype=np.float32)


def fineness(px: int) -> float:
    """Share of the contrast of fine grain that survives at `px` pixels a side.

    A camera averages over a pixel: what is sharp grain in a large image is nearly
    smooth in a small one.
    """
    return float(min(1, (px / 200) ** 0.7))


def ramp(field: Plane, low: float, high: float) -> Plane:
    """Smooth step from 0 at `low` to 1 at `high` (cubic; low above high falls)."""
    t = np.clip((field - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def _mirrored(index: NDArray[np.int64], px: int) -> NDArray[np.int64]:
    folded = index % (2 * px)
    return np.minimum(folded, 2 * px - 1 - folded)


def shift_columns(field: Plane, offset: Plane) -> Plane:
    """Move the content of each column down by `offset` (px,), in pixels.

    What leaves at one end is filled by the mirror image of what is there.
    """
    px = field.shape[0]
    source = np.arange(px, dtype=np.float32)[:, None] - offset[None, :]
    lower = np.floor(source).astype(np.int64)
    share = (source - lower).astype(np.float32)
    first = np.take_along_axis(field, _mirrored(lower, px), axis=0)
    second = np.take_along_axis(field, _mirrored(lower + 1, px), axis=0)
    return np.asarray(first * (1 - share) + second * share, dtype=np.float32)
