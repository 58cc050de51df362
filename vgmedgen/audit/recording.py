"""What is kept of one training under DP: per step, against what the plan says.

d values train in P tensors; z is noise in units of its deviation.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vgmedgen.audit.trainer import noise_of
from vgmedgen.config.plan import RunPlan
from vgmedgen.privacy.plan import LORA, MAPPER, PRIOR

KEPT = 1024  # values of each tensor's noise in each step that are kept for comparisons


@dataclass(frozen=True)
class Terms:
    """What the plan says of one training in one round."""

    training: str  # mapper | generate | prior
    steps: int
    rate: float  # with which a unit joins a step
    units: int  # of the site
    clip: float  # L2 norm
    noise: float  # multiple of the clip
    peak: float  # learning rate
    ema: float
    rows: int  # of one unit in a step: its images times its draws

    @property
    def expected(self) -> float:
        """Units that a step expects: the public denominator."""
        return self.rate * self.units

    @classmethod
    def of(cls, plan: RunPlan, training: str, units: int) -> "Terms":
        """The terms of `training` at a site with so many units."""
        clip, noise = noise_of(plan, training)
        steps, peak = {
            MAPPER: (plan.align.mapper_steps, plan.align.mapper_rate),
            PRIOR: (plan.align.prior_steps, plan.align.prior_rate),
            LORA: (plan.generate.steps, plan.generate.learning_rate),
        }[training]
        ask = plan.privacy
        draws = ask.draws if training == LORA else 1
        return cls(
            training,
            steps,
            ask.rate,
            units,
            clip,
            noise,
            peak,
            ask.ema,
            ask.images * draws,
        )


@dataclass(frozen=True)
class Call:
    """One call of the loss: all that it was given."""

    number: int
    rows: Tensor  # (R,)
    generator: Tensor  # its state


@dataclass(frozen=True)
class Spot:
    """A step whose gradients are computed again, one unit at a time."""

    calls: tuple[Call, ...]
    weights: tuple[Tensor, ...]
    clipped: Tensor  # (d,): the sum of the engine's gradients, clipped here


@dataclass(frozen=True)
class Step:
    """One step, against what it should have been. z: noise in units of its deviation."""

    rows: tuple[Tensor, ...]  # of each call of the loss
    shown: bool  # the engine showed gradients and noised sum
    squares: Tensor  # (P,): sum of z^2
    sums: Tensor  # (P,): sum of z
    kept: Tensor  # (K,): the first `KEPT` of each tensor's z
    along: float  # z along the sum that it hides
    off: float  # clip norms between the engine's sum and the sum of clipped gradients
    added: float  # largest z between what was added to the sum and the secret's noise
    divided: tuple[float, float]  # least and largest denominator
    drift: float  # largest distance of a weight from what the releases make of it


@dataclass
class Recording:
    """One training in one round."""

    terms: Terms
    round: int
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    steps: list[Step] = field(default_factory=list)
    totals: Tensor | None = None  # (2, d): sums of z and of z^2 over steps
    wrong: float = 0.0  # clip norms between the sum and one unit at a time, at spots
    spots: int = 0
    end_drift: float = torch.inf  # of what is sent; inf: the training never ended
    error: str = ""  # what could not be recorded
