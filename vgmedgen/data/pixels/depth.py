"""Which greys stored numbers stand for, where they have more than 8 bits.

Many files keep 8, 10 or 12 bits in words of 16 and say so nowhere. They are read as of
the smallest usual depth that holds the largest number of this one image, which keeps the
greys of a series comparable: black stays 0, and nothing is stretched to an image's own
extremes. An image that fills less than a sixteenth of its range would come out flat, and
is refused.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vgmedgen.errors import DataError

USUAL = (8, 10, 12, 14, 16)  # bits
FLAT = 16  # an image whose greys fill less than 1/FLAT of their range is refused
_BYTE_IN_WORD = 257  # 8 bit greys spread over 16 are multiples of it
_REMEDY = "export it as 8 bit greys as they are to be seen"


def smallest(top: float) -> int:
    """The smallest usual depth, bits, that holds a number from 0 to 65535."""
    return next(bits for bits in USUAL if top < 1 << bits)


def of(path: Path, values: NDArray[Any]) -> int:
    """Bits of the range that whole numbers of any shape use, by the rule above.

    Raises:
        DataError: if they are negative, need more than 16 bits, or would look flat.
    """
    low, high = float(values.min()), float(values.max())
    if low < 0 or high >= 1 << USUAL[-1]:
        raise DataError(
            f"{path} holds greys from {low:g} to {high:g}, and 0 to 65535 are read; "
            f"which of them are black and white is not said: {_REMEDY}"
        )
    bits = smallest(high)
    if high > 0 and bits < USUAL[-1] and not np.any(values % _BYTE_IN_WORD):
        bits = USUAL[-1]
    refuse_flat(path, low, high, float(1 << bits))
    return bits


def refuse_flat(path: Path, low: float, high: float, span: float) -> None:
    """Refuse an image whose greys, unless all are black, would hardly differ.

    Raises:
        DataError: if they fill less than 1/FLAT of the range from 0 to `span`.
    """
    if high > 0 and (high - low) * FLAT < span:
        raise DataError(
            f"{path} holds greys from {low:g} to {high:g} of a range of {span:g}, which "
            f"would look flat; which of them are black and white is not said: {_REMEDY}"
        )


def eight_bit(
    path: Path, values: NDArray[Any], bits: int | None = None
) -> NDArray[np.uint8]:
    """Whole or broken numbers, grey or colour, as 8 bits.

    Numbers with fractions are read as 0 to 1 where none is larger, else by the depth
    that holds them. 8 bit values stay as they are.

    Args:
        path: of the file, for refusals.
        values: of any shape.
        bits: their depth, where the file says it.

    Raises:
        DataError: as of `of`, and if a number is not finite.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind != "f":
        if bits is None:
            bits = of(path, values)
        else:
            refuse_flat(
                path, float(values.min()), float(values.max()), float(1 << bits)
            )
        wide: NDArray[Any] = values >> (bits - 8)
        return wide.astype(np.uint8)
    if not np.isfinite(values).all():
        raise DataError(
            f"{path} holds greys that are no finite numbers; {_REMEDY}, without gaps"
        )
    low, high = float(values.min()), float(values.max())
    if low >= 0 and 0 < high <= 1:
        refuse_flat(path, low, high, 1.0)
        span = 1.0
    else:
        span = float((1 << of(path, values)) - 1)
    return (values / span * 255).round().clip(0, 255).astype(np.uint8)
