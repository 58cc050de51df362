"""Which pixels of a mask file are lesion, whatever tool wrote it.

Of a file of two values the lesion is what is not background: not 0, not black, not
transparent. More values are taken only where they are plainly the soft or compressed
edge between those two; several labels, or colours without a black, are refused.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vgmedgen.data.pixels.raster import Raster
from vgmedgen.errors import DataError

HALF = 128  # of 255: a soft edge belongs to the lesion from here up
FAINT = 64  # a mask of more than two values ends higher, or these are labels
# shares of the range: within the first a value is near black or white, beyond the others
# it is so only near an edge (a flat block of a JPEG is off by a little)
_EXACT = (1 / 8, 0.0, 2.5 / 255)
_COMPRESSED = (1 / 4, 16.5 / 255, 16.5 / 255)
_NOMINAL = 0.75  # of the full range; from here up that range is meant
_SETTLED = 0.75  # share of the pixels that are at least black or white
_EDGE = 4  # pixels from either side within which a soft edge lies, and 1 per _SIDE
_SIDE = 200
_MANY = 16  # values from which a file was compressed once, whatever it is now
_RINGING = 16  # pixels around an edge that compression leaves noise in
_FEW = 4  # values up to which an edge must be one pixel wide, for they may be labels
_SPECKS = 0.01  # of the lesion: compressed specks that never get bright
_CHROMA = 24  # by which compressed greys differ between channels
_OTHER_COLOUR = 96  # distance in a channel from which a compressed colour is another
_STRAYS = 0.02  # share of such pixels at edges
_OPAQUE = 255
_ROUNDED = 2  # of 255: by which the parts of a soft colour may be off
_NAMED = 6  # values that a refusal names

Values = NDArray[Any]
Lesion = NDArray[np.bool_]


def of(path: Path, raster: Raster) -> Lesion:
    """The lesion (H, W) that a mask file shows.

    Raises:
        DataError: if that is in doubt.
    """
    if raster.alpha is not None:
        return _of_clear(path, raster, raster.alpha)
    return _of_opaque(path, raster)


def _of_opaque(path: Path, raster: Raster) -> Lesion:
    if raster.index is not None and _confounded(raster):
        return of_grey(path, raster.index, lossy=False)
    if raster.values.ndim == 2:  # noqa: PLR2004 - rows and columns
        return of_grey(path, raster.values, lossy=raster.lossy)
    return of_colours(path, raster.values, lossy=raster.lossy)


def _confounded(raster: Raster) -> bool:
    """Whether a palette shows several of its places in one colour."""
    packed = _packed(raster.values)
    return raster.index is not None and len(np.unique(raster.index)) > len(
        np.unique(packed)
    )


def _of_clear(path: Path, raster: Raster, alpha: Values) -> Lesion:
    """What is opaque is lesion, unless it is black and something else is not."""
    seen = alpha >= HALF
    shape = of_grey(path, alpha, lossy=raster.lossy)
    values = (
        raster.values if raster.values.ndim > alpha.ndim else raster.values[..., None]
    )
    shown = np.unique(values[seen].reshape(-1, values.shape[-1]), axis=0)
    if len(shown) <= 1:  # one colour: the outline is all that there is
        return shape
    visible = np.where(seen[..., None], values, 0).astype(values.dtype)
    flat = visible if values.shape[-1] > 1 else visible[..., 0]
    inside = _of_opaque(path, Raster(values=flat, lossy=raster.lossy))
    soft = len(np.unique(alpha)) > 2  # noqa: PLR2004 - transparent and opaque
    if soft:
        raise DataError(
            f"mask {path} is drawn in its transparency and in its colours; save it "
            "without transparency, white on black"
        )
    return inside


def of_colours(path: Path, values: Values, *, lossy: bool) -> Lesion:
    """The lesion (H, W) of colours (H, W, 3), drawn on black.

    Raises:
        DataError: if there are several colours, or none is black.
    """
    bright = values.max(-1)
    chroma = int((bright - values.min(-1)).max(initial=0))
    if chroma <= (_CHROMA if lossy else 0):
        return of_grey(path, bright, lossy=lossy)
    if lossy:
        strong = values[bright >= bright.max() * _NOMINAL].astype(np.int32)
        apart = np.abs(strong - np.median(strong, axis=0)).max(-1)
        if (apart > _OTHER_COLOUR).mean() > _STRAYS:
            raise _colourful(path, "several colours")
        return of_grey(path, bright, lossy=True)
    packed = _packed(values)
    found, counts = np.unique(packed, return_counts=True)
    if len(found) <= 2:  # noqa: PLR2004 - background and lesion
        if found[0] != 0 and len(found) > 1:
            raise _colourful(path, "two colours and none of them is black")
        lesion: Lesion = packed != 0
        return lesion
    strong = bright == bright.max()
    peak = values[strong][0].astype(np.float64)
    expected = bright[..., None] * (peak / peak.max())
    if np.abs(values - expected).max() > _ROUNDED * max(1.0, peak.max() / _OPAQUE):
        raise _colourful(path, f"{len(counts)} colours")
    return of_grey(path, bright, lossy=False)


def of_grey(path: Path, values: Values, *, lossy: bool) -> Lesion:
    """The lesion (H, W) of numbers (H, W), drawn on 0.

    Raises:
        DataError: if they are negative, not finite, several labels, or never 0.
    """
    levels = np.unique(values)
    low, high = levels[0], levels[-1]
    if not np.isfinite(levels).all() or low < 0:
        raise DataError(
            f"mask {path} holds numbers that are negative or no numbers; save it as 0 "
            "for background and 255 for lesion"
        )
    if len(levels) == 1:  # a coarse JPEG's black may be a little above 0
        return np.full(values.shape, bool(high > (FAINT / 2 if lossy else 0)))
    if len(levels) == 2 and not lossy and low == 0:  # noqa: PLR2004 - two labels
        return np.asarray(values == high)
    top = float(high)
    for full in (1.0, 255.0, 65535.0):
        if full * _NOMINAL <= top <= full:
            top = full
    fraction = values / top
    labels = values.dtype.kind != "f" and high < FAINT
    two = len(levels) == 2 and not lossy  # noqa: PLR2004 - none of them is 0
    if labels or two or not _is_edge(fraction, levels, lossy=lossy):
        raise _labelled(path, levels)
    return np.asarray(fraction * 255 >= HALF - 0.5)


def _is_edge(fraction: Values, levels: Values, *, lossy: bool) -> bool:
    """Whether all between black and white lies where the two meet.

    Args:
        fraction: (H, W) in 0 to 1.
        levels: which values there are.
        lossy: whether noise may stand anywhere.
    """
    lossy = lossy or len(levels) > _MANY
    near, black_noise, white_noise = _COMPRESSED if lossy else _EXACT
    black, white = fraction <= near, fraction >= 1 - near
    if not white.any() or (black | white).mean() < _SETTLED:
        return False
    few = not lossy and len(levels) <= _FEW
    reach, around = _EDGE + max(fraction.shape) // _SIDE, _RINGING
    if few:
        reach = around = 1
    lost = ~(black | white) & ~(_grown(black, reach) & _grown(white, reach))
    lost |= black & (fraction > black_noise) & ~_grown(white, around)
    lost |= white & (fraction < 1 - white_noise) & ~_grown(black, around)
    return bool(lost.sum() <= (_SPECKS * white.sum() if lossy else 0))


def _grown(where: Lesion, by: int) -> Lesion:
    """Every pixel within `by` rows and columns of one that is true."""
    planes = torch.from_numpy(where)[None, None].float()
    for kernel, padding in (((2 * by + 1, 1), (by, 0)), ((1, 2 * by + 1), (0, by))):
        planes = functional.max_pool2d(planes, kernel, stride=1, padding=padding)
    return (planes[0, 0] > 0).numpy()


def _packed(values: Values) -> NDArray[np.uint64]:
    """Colours (H, W, C) as one number each; black is 0."""
    total = np.zeros(values.shape[:2], dtype=np.uint64)
    for channel in range(values.shape[2]):
        total = total << np.uint64(16) | values[..., channel].astype(np.uint64)
    return total


def _labelled(path: Path, levels: Values) -> DataError:
    named = ", ".join(f"{level:g}" for level in levels[:_NAMED].tolist())
    more = ", …" if len(levels) > _NAMED else ""
    return DataError(
        f"mask {path} holds {len(levels)} different values ({named}{more}) that are not "
        "one lesion with a soft edge on 0; save each label as a mask of its own, 0 for "
        "background and 255 for lesion"
    )


def _colourful(path: Path, what: str) -> DataError:
    return DataError(
        f"mask {path} holds {what}; which of them is the lesion is not said: save it as "
        "black for background and white for lesion"
    )
