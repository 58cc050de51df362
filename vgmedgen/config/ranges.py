"""Checks of single values, and the digest of many: what every configuration shares."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vgmedgen.errors import ConfigError


def positive(section: str, **values: float) -> None:
    """Raise ConfigError unless every value is above 0 and finite (NaN is refused too)."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{section}.{name} must be above 0, got {value}")


def within(section: str, low: float, high: float, **values: float) -> None:
    """Raise ConfigError unless every value lies in [low, high]."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ConfigError(
                f"{section}.{name} must lie in [{low:g}, {high:g}], got {value}"
            )


def one_of(section: str, allowed: Sequence[str], **values: str) -> None:
    """Raise ConfigError unless every value is one of `allowed`."""
    for name, value in values.items():
        if value not in allowed:
            raise ConfigError(
                f"{section}.{name} must be one of {', '.join(allowed)}, got '{value}'"
            )


def digest_of(facts: Mapping[str, Any]) -> str:
    """sha256 of `facts` as canonical JSON, in hexadecimal."""
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()
