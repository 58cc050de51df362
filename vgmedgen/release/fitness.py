"""Whether a release may be put to use where it was measured: on one site's own images.

A release that is signed and whole may still be a bad model, because one site of its run
spoilt it. So a site compares its held-out loss with that of what the release would take
the place of. What it finds stays at the site: it is kept beside the installed release,
and no message tells it.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import ReleaseError
from vgmedgen.release import installed

KEY = "heldout"  # in what is told of an installed release
BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Fitness:
    """Held-out losses at one site; the same timesteps and noises for each of them."""

    loss: float  # of the release
    before: Mapping[str, float]  # of the base, and of the release in use by its name
    margin: float  # share by which the release may be worse than each of them

    @property
    def worse_than(self) -> str:
        """What the release is worse than by more than the margin; empty for nothing.

        A loss that is no number is worse than any.
        """
        for name, loss in sorted(self.before.items()):
            if not self.loss <= (1 + self.margin) * loss:
                return name
        return ""

    def told(self) -> dict[str, Any]:
        """What is kept of it beside the release, plain JSON values."""
        return asdict(self) | {"worse_than": self.worse_than}


Judge = Callable[[RunPlan, Mapping[str, Mapping[str, np.ndarray]]], Fitness | None]
"""(plan, weights of a release) -> its fitness; None where nothing can be measured."""


def why_not(folder: Path) -> str:
    """Why an installed release was not put to use, in words; empty where nothing was.

    Raises:
        ReleaseError: if what is told of the release is damaged.
    """
    told = installed.told_of(folder).get(KEY)
    if told is None:
        return ""
    try:
        name, margin = str(told["worse_than"]), float(told["margin"])
        own = float(told["loss"])
        other = float(told["before"][name]) if name else 0.0
    except (KeyError, TypeError, ValueError):
        raise installed.damaged(folder, installed.TOLD) from None
    if not name:
        return ""
    what = "the base's" if name == BASE else f"that of release {name}, in use then,"
    return (
        f"its held-out loss here is {own:.4g}, {what} {other:.4g}: worse by more than "
        f"policy.worse_by={margin:g}"
    )


def is_held_back(folder: Path) -> bool:
    """Whether an installed release waits for a person's word before it is used."""
    try:
        return bool(why_not(folder))
    except ReleaseError:
        return False  # a damaged one is refused by whoever verifies it
