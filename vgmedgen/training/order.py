"""What a site is asked to do in one round, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vgmedgen.config.plan import RunPlan
from vgmedgen.exchange.merge import trained_factor


@dataclass(frozen=True, kw_only=True)
class Order:
    """One round's work for one site.

    `weights` always holds both groups: group -> canonical name -> float32 array.
    """

    run: str
    number: int  # round of the run, from 1
    stage: str  # align | generate
    plan: RunPlan
    weights: Mapping[str, Mapping[str, np.ndarray]]
    turn: int = 1  # round within its stage, from 1: decides which factor trains

    @property
    def factor(self) -> str | None:
        """LoRA factor that alone trains and leaves in this round; None for both."""
        if self.stage != "generate":
            return None
        return trained_factor(self.plan.merge, self.turn)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a site computed, and the numbers that go with it.

    Under DP the loss is withheld, since no noise was added to it, and `units` is the
    constant that the site declared when its cohort was opened.
    """

    state: Mapping[str, np.ndarray]  # the stage's group, whole
    units: int
    loss_sum: float | None  # None where it must not leave the site
    epsilon: float = 0.0  # spent by the site so far, over all runs; 0 without DP
