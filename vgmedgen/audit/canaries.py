"""One-run audit: how many planted canaries can be told from those left out?

Every canary is a fabricated unit. A coin of its own decides whether it trains; then the
site's engine trains once under the claimed plan, and the attacker, who sees what every
step released, guesses. What his luck proves of epsilon is in `statistics.one_run_bound`.
Source: Steinke, Nasr and Jagielski 2023, arXiv 2305.08846.

Two bounds are told: one that holds for any mechanism of (epsilon, delta), and a tighter
one for an engine that does what the plan says with less noise (`curves.py`). Beside each
stands its ceiling, which no guesses at so many canaries can exceed: below the claim, they
can refute nothing.

More canaries make a higher bound possible, yet the more there are for the weights that
train, the more their directions overlap. The models that learn of them are copies and are
thrown away.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vgmedgen.audit import curves
from vgmedgen.audit.fabricated import fabricate
from vgmedgen.audit.statistics import OneRun, Scores, best_one_run, highest
from vgmedgen.audit.trainer import Trace, Trainer, one_round
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import TrainingError
from vgmedgen.exchange.merge import trained_factor
from vgmedgen.models import lora
from vgmedgen.models.objective import denoising_loss
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.models.text.mapper import align_loss
from vgmedgen.privacy.accountant import Mechanism, spent
from vgmedgen.privacy.plan import LORA, MAPPER, PrivacyPlan
from vgmedgen.privacy.randomness import Secret
from vgmedgen.training.align import map_text, see
from vgmedgen.training.loop import generator_of
from vgmedgen.training.rounds import Workbench
from vgmedgen.training.samples import Samples

IMAGES = 2  # of each canary
RIDGES = (0.3, 0.01)  # of the regression on all directions, which have length 1
DRAWS = 8  # timesteps at which the attacker looks at a canary's gradient
STAGES = {MAPPER: "align", LORA: "generate"}

Losses = Callable[[], Iterator[Tensor]]
"""Losses (images,) of one canary after the other, with the weights as they are."""


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """What planting canaries in one training proved, and could have proved."""

    training: str  # mapper | generate
    steps: int
    cost: float | None  # epsilon that the plan gives this training; None without DP
    proven: OneRun  # whatever the mechanism
    ceiling: float  # of that bound, were every guess right
    curve: OneRun | None  # if the engine differs from the plan by its noise; with DP
    curve_ceiling: float | None
    scores: tuple[float, ...]
    included: tuple[bool, ...]


def plant(
    trainer: Trainer,
    training: str,
    plan: RunPlan,
    like: Samples,
    folder: Path,
    *,
    count: int,
    delta: float,
    confidence: float = 0.95,
) -> Canaries:
    """Train once with half of the canaries, and guess which.

    Args:
        trainer: the engine under audit.
        training: mapper or generate.
        plan: of the run; all rounds of the stage are trained in one.
        like: gives shapes and scales of the canaries.
        folder: for their pixels; thrown away by the caller.
        count: canaries.
        delta: of the claim.
        confidence: of the bound.

    Raises:
        TrainingError: if the training took no step.
    """
    canaries = fabricate(count, IMAGES, like, folder, seed=1)
    included = coins(count)
    names = sorted({record.unit for record in canaries.records})
    joined = frozenset(n for n, here in zip(names, included, strict=True) if here)
    stage = STAGES[training]
    whole = one_round(plan, stage)
    trace = trainer(canaries.of_units(joined), whole, stage).get(training)
    if trace is None or not trace.segments:
        raise TrainingError(f"the training '{training}' took no step: nothing to audit")
    tried = score(trainer, training, plan, canaries, trace)
    mechanism = whole_mechanism(plan, training) if plan.privacy.enabled else None
    # divided among all scores that are tried, and both bounds
    level = 1 - (1 - confidence) / (len(tried) * (1 if mechanism is None else 2))
    judged = [
        (best_one_run(scores, included, delta=delta, confidence=level), scores)
        for scores in tried
    ]
    proven, scores = max(judged, key=lambda pair: (pair[0].epsilon, pair[0].correct))
    asked = {"delta": delta, "confidence": level}
    curve = limit = cost = None
    if mechanism is not None:
        found = [curves.best(one, included, mechanism, **asked) for one in tried]
        curve = max(found, key=lambda one: (one.epsilon, one.correct))
        limit = curves.ceiling(count, mechanism, **asked)
        cost = spent([mechanism], delta).epsilon
    return Canaries(
        training=training,
        steps=trace.count,
        cost=cost,
        proven=proven,
        ceiling=highest(count, **asked),
        curve=curve,
        curve_ceiling=limit,
        scores=tuple(scores.tolist()),
        included=tuple(bool(one) for one in included),
    )


def whole_mechanism(plan: RunPlan, training: str) -> Mechanism:
    """All steps of one training over the whole run."""
    found = PrivacyPlan.of(plan).trainings[training]
    return replace(found.mechanism, steps=found.mechanism.steps * found.rounds)


def coins(count: int) -> NDArray[np.bool_]:
    """Fair coins that no seed repeats; never all alike, so that a training can start."""
    while True:
        found: NDArray[np.bool_] = (Secret().uniform(count) < 0.5).numpy()  # noqa: PLR2004
        if 0 < found.sum() < count:
            return found


def score(
    trainer: Trainer, training: str, plan: RunPlan, canaries: Samples, trace: Trace
) -> list[Scores]:
    """How much of each canary's own direction is in what was released.

    Its direction is its gradient where each segment of the training began, at unit
    length as the clip leaves it, less what all canaries have in common. Where directions
    overlap a canary is also seen in the others' share; ridge regression on all
    directions at once takes that out, the more of it the less noise there is. Which is
    best depends on the noise, so there is one set of scores for each of `RIDGES`.
    """
    bench = trainer.restart()
    losses = (_mapper if training == MAPPER else _generator)(bench, plan, canaries)
    weights = trained(bench, training, plan)
    inner, overlap = torch.zeros(canaries.units), torch.zeros(())
    for segment in trace.segments:
        with torch.no_grad():
            for weight, then in zip(weights, segment.weights, strict=True):
                weight.copy_(then)
        own = torch.stack([_flat(loss, weights) for loss in losses()])
        own = functional.normalize(own, dim=1)
        own -= own.mean(0)
        inner = inner + (own @ segment.total).cpu()
        overlap = overlap + (own @ own.T).cpu() / len(trace.segments)
    scores = [inner.double()]
    for ridge in RIDGES:
        damped = overlap.double() + ridge * torch.eye(len(inner), dtype=torch.float64)
        scores.append(torch.linalg.solve(damped, scores[0]))
    return [one.numpy() for one in scores]


def trained(bench: Workbench, training: str, plan: RunPlan) -> list[nn.Parameter]:
    """What trains in the first round of a stage, in the engine's order."""
    if training == MAPPER:
        return list(bench.mapper.parameters())
    factor = trained_factor(plan.merge, 1)
    return [
        weight
        for name, weight in lora.parameters(bench.generator).items()
        if factor is None or name.endswith(f".{factor}")
    ]


def _mapper(bench: Workbench, plan: RunPlan, canaries: Samples) -> Losses:
    prior = VisualPrior.from_pretrained(bench.bundle.part("visual_prior"))
    seen = see(prior.to(bench.device), canaries)

    def losses() -> Iterator[Tensor]:
        for rows in map(list, canaries.by_unit()):
            yield align_loss(
                bench.mapper,
                canaries.embeddings[rows].to(bench.device),
                seen.anatomy[rows].to(bench.device),
                seen.style[rows].to(bench.device),
                plan.align.decoder,
            )

    return losses


def _generator(bench: Workbench, _: RunPlan, canaries: Samples) -> Losses:
    told = map_text(bench.mapper, canaries.embeddings)
    width = len(bench.schedule) // DRAWS

    def losses() -> Iterator[Tensor]:
        draw = generator_of(0, "canaries")
        for unit in canaries.by_unit():
            rows = torch.tensor(unit).repeat_interleave(DRAWS)
            times = torch.arange(DRAWS).repeat(len(unit)) * width + width // 2
            latents = canaries.latents[rows].to(bench.device)
            yield denoising_loss(
                bench.generator,
                bench.schedule,
                latents,
                times.to(bench.device),
                torch.randn(latents.shape, generator=draw).to(bench.device),
                told.anatomy[rows].to(bench.device),
                told.style[rows].to(bench.device),
            )

    return losses


def _flat(loss: Tensor, weights: list[nn.Parameter]) -> Tensor:
    parts = torch.autograd.grad(loss.mean(), weights)
    return torch.cat([part.flatten() for part in parts])
