"""Random fields that phantoms are painted with: clouds, bands, spots and warps.

Fields are made by filtering white noise in the Fourier domain, with frequencies in
cycles per image side, so that a field looks the same at every resolution.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]  # (px, px), or (n, px, px) where a function says so


@lru_cache(maxsize=16)
def grid(px: int) -> tuple[Plane, Plane]:
    """Pixel centres as (x, y), each (px, px), in [0, 1]; y points down."""
    line = (np.arange(px, dtype=np.float32) + 0.5) / px
    y, x = np.meshgrid(line, line, indexing="ij")
    for plane in (x, y):
        plane.flags.writeable = False  # shared by every caller through the cache
    return x, y


@lru_cache(maxsize=256)
def _frequency(px: int, stretch: float) -> Plane:
    """Length of the frequency vector of each rfft2 bin, in cycles per side."""
    vertical = np.fft.fftfreq(px, 1 / px)[:, None]
    horizontal = np.fft.rfftfreq(px, 1 / px)[None, :] * stretch
    return np.hypot(vertical, horizontal).astype(np.float32)


def _shaped(rng: np.random.Generator, px: int, gain: Plane, n: int) -> Plane:
    """White noise with the amplitude spectrum `gain`, unit expected variance."""
    white = rng.standard_normal((n, px, px), dtype=np.float32)
    # rfft2 stores half of the plane: its inner columns count twice in the power.
    power = 2 * np.square(gain).sum() - np.square(gain[:, 0]).sum()
    scale = px / np.sqrt(power + 1e-12)
    spectrum = np.fft.rfft2(white) * (gain * scale).astype(np.float32)
    return np.fft.irfft2(spectrum, s=(px, px)).astype(np.float32)


@lru_cache(maxsize=256)
def _slope_gain(px: int, slope: float, stretch: float) -> Plane:
    frequency = _frequency(px, stretch)
    gain = np.maximum(frequency, 0.5) ** -slope
    gain[0, 0] = 0
    return gain.astype(np.float32)


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
    """
    return _shaped(rng, px, _slope_gain(px, slope, stretch), n)


def cloud(
    rng: np.random.Generator, px: int, slope: float, *, stretch: float = 1
) -> Plane:
    """One field of `clouds`, (px, px)."""
    return clouds(rng, px, slope, stretch=stretch)[0]


@lru_cache(maxsize=512)
def _band_gain(px: int, cycles: float, width: float, stretch: float) -> Plane:
    frequency = np.maximum(_frequency(px, stretch), 1e-3)
    gain = np.exp(-np.square(np.log(frequency / cycles)) / (2 * width**2))
    return gain.astype(np.float32)


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
        px: Side in pixels; cycles above px/3 are lowered to what the grid can show.
        cycles: Blobs per side; rounded, so that filters can be kept.
        width: Spread of the band in log frequency; small is regular.
        stretch: As in `clouds`.
    """
    shown = float(round(max(min(cycles, px / 3), 1)))
    return _shaped(rng, px, _band_gain(px, shown, width, stretch), 1)[0]


def ridges(field: Plane, sharpness: float) -> Plane:
    """Lines along the zero crossings of `field`: 1 on the line, 0 far from it."""
    return np.exp(-np.square(field * sharpness))


def ramp(field: Plane, low: float, high: float) -> Plane:
    """Smooth step from 0 at `low` to 1 at `high` (cubic; low above high falls)."""
    t = np.clip((field - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def shift_columns(field: Plane, offset: Plane) -> Plane:
    """Move the content of each column down by `offset` (px,), in pixels, wrapping."""
    px = field.shape[0]
    source = np.arange(px, dtype=np.float32)[:, None] - offset[None, :]
    lower = np.floor(source).astype(np.int64)
    share = (source - lower).astype(np.float32)
    first = np.take_along_axis(field, lower % px, axis=0)
    second = np.take_along_axis(field, (lower + 1) % px, axis=0)
    return first * (1 - share) + second * share
