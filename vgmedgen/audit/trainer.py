"""The site's own training under watch: what its steps release, and of which units.

Nothing is built again here: a round runs as in production, on copies in a folder that is
thrown away, and every optimiser step is looked at just before it moves the weights.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from vgmedgen.config.plan import PrivacyConfig, RunPlan
from vgmedgen.models import lora
from vgmedgen.privacy.plan import LORA, MAPPER, PRIOR, PrivacyPlan
from vgmedgen.training import rounds
from vgmedgen.training.order import Order
from vgmedgen.training.rounds import Desk, Workbench
from vgmedgen.training.samples import Samples

KEPT = 4  # steps of which everything is kept
SEGMENTS = 8  # of a training, of which weights and sums are kept


@dataclass(frozen=True)
class Step:
    """One step as the engine made it; flat over all weights, d long."""

    released: Tensor  # (d,): the noisy sum over units
    summed: Tensor | None  # (d,): the sum before noise, where the engine shows it
    each: Tensor | None  # (units, d): per-unit gradients of its last part


@dataclass
class Segment:
    """Some steps in a row: where they began, and what they released together."""

    weights: tuple[Tensor, ...]
    total: Tensor  # (d,)


@dataclass
class Trace:
    """What one training released."""

    steps: list[Step] = field(default_factory=list)  # the first `KEPT`
    count: int = 0
    segments: list[Segment] = field(default_factory=list)


class Trainer(Protocol):
    """An engine under audit."""

    def __call__(
        self, samples: Samples, plan: RunPlan, stage: str
    ) -> Mapping[str, Trace]:
        """Train one round of `stage`; a trace per training, by name."""
        ...

    def restart(self) -> Workbench:
        """The models as a round finds them."""
        ...


class SiteTrainer:
    """The installed engine, from a site's samples to what its steps release.

    Args:
        bench: models of the site's base, opened for this audit alone.
    """

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.start: Mapping[str, Mapping[str, np.ndarray]] = bench.states()

    def __call__(
        self, samples: Samples, plan: RunPlan, stage: str
    ) -> Mapping[str, Trace]:
        """Run one round in a folder of its own."""
        parts: Mapping[str, Sequence[nn.Parameter]] = {
            MAPPER: list(self.bench.mapper.parameters()),
            LORA: list(lora.parameters(self.bench.generator).values()),
            PRIOR: list(self.bench.prior.parameters()),
        }
        expected = plan.privacy.rate * samples.units
        align = stage == "align"
        steps = plan.align.mapper_steps if align else plan.generate.steps
        every = -(-steps // SEGMENTS)
        order = Order(run="audit", number=1, stage=stage, plan=plan, weights=self.start)
        watch = watched(parts, expected, every)
        with tempfile.TemporaryDirectory() as scratch, watch as seen:
            rounds.train(self.bench, Desk("audit", samples, Path(scratch)), order)
        return seen

    def restart(self) -> Workbench:
        """The models as a round finds them."""
        self.bench.take(self.start)
        return self.bench


@contextmanager
def watched(
    parts: Mapping[str, Sequence[nn.Parameter]], expected: float, every: int
) -> Iterator[dict[str, Trace]]:
    """Record, within it, every step of an optimiser that holds weights of `parts`.

    Args:
        parts: weights by the name of their training.
        expected: units that a step expects: what the engine divides the sum by.
        every: steps in a segment.
    """
    owner = {id(weight): name for name, own in parts.items() for weight in own}
    traces: dict[str, Trace] = {}

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        name = owner.get(id(weights[0])) if weights else None
        if name is None:
            return
        trace = traces.setdefault(name, Trace())
        released = expected * torch.cat([_gradient(w).flatten() for w in weights])
        if trace.count % every == 0:
            here = tuple(weight.detach().clone() for weight in weights)
            trace.segments.append(Segment(here, torch.zeros_like(released)))
        trace.segments[-1].total += released
        if trace.count < KEPT:
            trace.steps.append(
                Step(released, _flat(weights, "summed_grad"), _each(weights))
            )
        trace.count += 1

    # torch tells of every step of every optimiser: no engine can avoid being seen
    hook = register_optimizer_step_pre_hook(look)
    try:
        yield traces
    finally:
        hook.remove()


def exact(
    plan: RunPlan, stage: str, *, images: int, clip: float, rate: float = 1.0
) -> RunPlan:
    """The plan for one step that, at rate 1, every unit joins.

    Args:
        plan: of the run; its claim and noise calibration stay.
        stage: that runs once.
        images: of each unit.
        clip: L2 norm, for every training.
        rate: chance of a unit to join.
    """
    privacy = dataclasses.replace(
        plan.privacy,
        rate=rate,
        images=images,
        draws=1,
        mapper_clip=clip,
        generate_clip=clip,
        prior_clip=clip,
    )
    return one_round(plan, stage, steps=1, privacy=privacy)


def one_round(
    plan: RunPlan,
    stage: str,
    *,
    steps: int | None = None,
    privacy: PrivacyConfig | None = None,
) -> RunPlan:
    """The plan with all steps of `stage` in one round, so that a round shows the run.

    Args:
        plan: of the run.
        stage: align or generate.
        steps: in that round instead.
        privacy: instead of the plan's.
    """
    if stage == "align":
        count = plan.align_rounds
        ask = dataclasses.replace(
            plan.align,
            mapper_steps=steps or count * plan.align.mapper_steps,
            prior_steps=steps or count * plan.align.prior_steps,
        )
        return dataclasses.replace(
            plan, align=ask, align_rounds=1, privacy=privacy or plan.privacy
        )
    count = plan.generate_rounds
    told = dataclasses.replace(
        plan.generate, steps=steps or count * plan.generate.steps
    )
    return dataclasses.replace(
        plan, generate=told, generate_rounds=1, privacy=privacy or plan.privacy
    )


def noise_of(plan: RunPlan, training: str) -> tuple[float, float]:
    """Clip norm and noise multiplier that a plan asks of one training."""
    found = PrivacyPlan.of(plan).trainings[training]
    return found.clip, found.mechanism.noise


def _gradient(weight: nn.Parameter) -> Tensor:
    found = weight.grad
    return torch.zeros_like(weight) if found is None else found.detach().float()


def _flat(weights: Sequence[nn.Parameter], name: str) -> Tensor | None:
    found = [getattr(weight, name, None) for weight in weights]
    if any(part is None for part in found):
        return None
    return torch.cat([part.detach().flatten() for part in found if part is not None])


def _each(weights: Sequence[nn.Parameter]) -> Tensor | None:
    found = [getattr(weight, "grad_sample", None) for weight in weights]
    if any(part is None for part in found):
        return None
    return torch.cat(
        [part.detach().flatten(1) for part in found if part is not None], dim=1
    ).clone()
