"""A group of named tensors as one flat float16 array, and back.

Hundreds of small arrays cost a minute a round in Flower, one costs seconds; so names,
shapes and order are the schema's and only the values travel.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from vgmedgen.errors import ExchangeError
from vgmedgen.exchange.schema import DTYPE, LIMITS, NUMBERS, Specs

State = Mapping[str, np.ndarray]
"""Canonical name -> float32 array."""

# Largest absolute value of a weight. No model here comes near it; whoever sends more
# wants sums to overflow.
LARGEST = 1e4


def pack(state: State, specs: Specs) -> np.ndarray:
    """Lay the tensors of `state` end to end.

    Args:
        state: exactly the tensors of `specs`.
        specs: names, shapes and order.

    Returns:
        Values, shape (sum of sizes,), float16.

    Raises:
        ExchangeError: for a missing or further name, another shape, or a value that is
            not finite, too large for float16, or above `LARGEST`.
    """
    check_names(state, specs)
    flat = np.empty(sum(spec.size for spec in specs), dtype=np.float16)
    start = 0
    for spec in specs:
        array = np.asarray(state[spec.name])
        if array.shape != spec.shape:
            raise ExchangeError(
                f"tensor {spec.name} has shape {array.shape}, the exchange schema has "
                f"{spec.shape}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            values = array.astype(np.float16).reshape(-1)
        if not np.isfinite(values).all():
            raise ExchangeError(
                f"tensor {spec.name} holds values that are not finite in float16 "
                "(limit 65504); nothing was sent"
            )
        if np.abs(values).max(initial=0) > LARGEST:
            raise ExchangeError(
                f"tensor {spec.name} holds a value of {np.abs(values).max():g}, the limit "
                f"is {LARGEST:g}; nothing was sent"
            )
        flat[start : start + spec.size] = values
        start += spec.size
    return flat


def unpack(flat: np.ndarray, specs: Specs) -> dict[str, np.ndarray]:
    """Cut a flat array into named float32 tensors.

    Raises:
        ExchangeError: if `check` refuses it.
    """
    check(flat, specs)
    state, start = {}, 0
    for spec in specs:
        values = flat[start : start + spec.size]
        state[spec.name] = values.astype(np.float32).reshape(spec.shape)
        start += spec.size
    return state


def check(flat: np.ndarray, specs: Specs) -> None:
    """Accept one flat float16 array of exactly the schema's length, all within bounds.

    Raises:
        ExchangeError: for anything else.
    """
    wanted = sum(spec.size for spec in specs)
    if str(flat.dtype) != DTYPE or flat.shape != (wanted,):
        raise ExchangeError(
            f"expected {wanted} values of {DTYPE} in one row, got {flat.dtype} of "
            f"shape {flat.shape}"
        )
    if not np.isfinite(flat).all():
        raise ExchangeError("the payload holds values that are not finite")
    if np.abs(flat).max(initial=0) > LARGEST:
        raise ExchangeError(
            f"the payload holds a value of {np.abs(flat).max():g}, the limit is "
            f"{LARGEST:g}"
        )


def check_names(state: State, specs: Specs) -> None:
    """Accept exactly the names of `specs`.

    Raises:
        ExchangeError: naming the first tensor that is missing or not listed.
    """
    listed = {spec.name for spec in specs}
    for name in sorted(listed ^ set(state)):
        what = "is missing from" if name in listed else "is not in the schema but in"
        raise ExchangeError(f"tensor {name} {what} the state to be sent")


def check_numbers(
    numbers: Mapping[str, object], listed: Sequence[str] = NUMBERS
) -> dict[str, float]:
    """Accept exactly the numbers `listed`, each finite and within its limits.

    Raises:
        ExchangeError: naming the number.
    """
    if set(numbers) != set(listed):
        raise ExchangeError(
            f"expected the numbers {', '.join(listed)}, got "
            f"{', '.join(sorted(str(name)[:40] for name in numbers)) or 'none'}"
        )
    checked: dict[str, float] = {}
    for name in listed:
        value = numbers[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ExchangeError(f"{name} is not a number")
        if not math.isfinite(value) or not 0 <= value <= LIMITS[name]:
            raise ExchangeError(
                f"{name} is {value}, the limit is 0 to {LIMITS[name]:g}"
            )
        checked[name] = value
    if checked["num-units"] != int(checked["num-units"]):
        raise ExchangeError(f"num-units is {checked['num-units']}, not a whole number")
    return checked


def on_wire(state: State, specs: Specs) -> dict[str, np.ndarray]:
    """The values that arrive when `state` is sent: rounded to float16, as float32."""
    return unpack(pack(state, specs), specs)
