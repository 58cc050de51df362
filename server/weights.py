"""Both groups of the exchange in one safetensors file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vgmedgen.errors import StateError
from vgmedgen.exchange.schema import GROUPS

Weights = Mapping[str, Mapping[str, np.ndarray]]
"""Group -> canonical name -> float32 array."""


def to_bytes(weights: Weights) -> bytes:
    """`weights` as safetensors, each name led by its group: equal in, equal out."""
    flat = {
        f"{group}/{name}": np.ascontiguousarray(weights[group][name], dtype=np.float32)
        for group in GROUPS
        for name in sorted(weights[group])
    }
    content: bytes = save(flat)
    return content


def from_bytes(content: bytes, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read what `to_bytes` wrote.

    Raises:
        StateError: if it is no such file; `path` is named.
    """
    weights: dict[str, dict[str, np.ndarray]] = {group: {} for group in GROUPS}
    try:
        for key, array in load(content).items():
            group, _, name = key.partition("/")
            weights[group][name] = array
    except (SafetensorError, KeyError, ValueError):
        raise StateError(
            f"{path} does not hold the weights of a run; restore it from a copy"
        ) from None
    return weights
