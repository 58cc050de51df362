"""Does the engine do what its accounting assumes? Exact checks, no statistics of attacks.

All of them look at real steps of the site's own training (`trainer.py`) on fabricated
units: per-unit gradients, sensitivity, noise, and what one unit's record does to the
others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vgmedgen.audit.fabricated import fabricate, swap_last
from vgmedgen.audit.trainer import Step, Trace, Trainer, exact, noise_of
from vgmedgen.config.plan import RunPlan
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.models.text.mapper import align_loss
from vgmedgen.privacy.accountant import spent
from vgmedgen.privacy.plan import LORA, MAPPER, PrivacyPlan
from vgmedgen.training.align import see
from vgmedgen.training.samples import Samples

UNITS, IMAGES = 5, 2
TIGHT = 1e-4  # clip norm of the checks: far below any gradient, so that it binds
ROUNDING = 1e-3  # relative, of norms and gradients in single precision
NOISE_ERROR = 0.05  # relative, of its standard deviation
ENOUGH = 12_000  # values of noise whose deviation is known to 1 %
LEAST, MOST = 2, 12  # steps in which they are gathered
ALIKE = 6.0  # standard errors of what is 0 by chance: one in 500 million
RARE = 1e-4  # rate at which nobody joins
STAGES = {MAPPER: "align", LORA: "generate"}

Check = Callable[[], tuple[bool, str]]
"""Whether it is as it should be, and what was found."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check, in words for the page."""

    name: str
    passed: bool
    told: str
    recorded: bool = False  # of the recorded training, rather than of single steps


class NotShownError(Exception):
    """The engine did not do or show what a check has to see."""


@dataclass(frozen=True)
class Exam:
    """What is examined: a trainer, the plan that it must keep, and fabricated units."""

    trainer: Trainer
    plan: RunPlan
    samples: Samples
    folder: Path  # of fabricated pixels

    def units(self, count: int, images: int, seed: int = 0) -> Samples:
        """Fabricated samples."""
        return fabricate(count, images, self.samples, self.folder, seed=seed)

    def trace(self, training: str, samples: Samples, plan: RunPlan) -> Trace:
        """The trace of one training in one round."""
        found = self.trainer(samples, plan, STAGES[training]).get(training)
        if found is None or not found.steps:
            raise NotShownError(f"the training '{training}' took no step")
        return found

    def step(self, training: str, samples: Samples, images: int) -> Step:
        """One step that all units join, under a clip that binds."""
        plan = exact(self.plan, STAGES[training], images=images, clip=TIGHT)
        return self.trace(training, samples, plan).steps[0]


def examine(
    trainer: Trainer, plan: RunPlan, samples: Samples, folder: Path
) -> list[Finding]:
    """All checks of a plan with DP.

    Args:
        trainer: the installed engine.
        plan: of the run; `privacy.enabled`.
        samples: give shapes and scales.
        folder: for fabricated pixels; thrown away by the caller.
    """
    exam = Exam(trainer, plan, samples, folder)
    checks: list[tuple[str, Check]] = [
        ("the noise keeps the claim", partial(_claim, plan))
    ]
    if plan.privacy.prior == "frozen":
        checks += [
            ("gradients per unit are exact", partial(_gradients, exam)),
            ("one unit moves the sum by no more than the clip", partial(_moves, exam)),
            ("no unit changes another's gradient", partial(_apart, exam)),
        ]
    for training in STAGES:
        checks += [
            (f"a unit is clipped whole ({training})", partial(_whole, exam, training)),
            (f"the noise is there ({training})", partial(_noise, exam, training)),
            (f"an empty step is noise ({training})", partial(_empty, exam, training)),
        ]
    findings = []
    for name, check in checks:
        try:
            passed, told = check()
        except NotShownError as error:
            passed, told = False, f"{error}: what cannot be checked counts as failed"
        findings.append(Finding(name=name, passed=passed, told=told))
    return findings


def _claim(plan: RunPlan) -> tuple[bool, str]:
    found = spent(PrivacyPlan.of(plan).whole(), plan.privacy.delta)
    claimed = plan.privacy.epsilon
    told = f"all rounds cost epsilon {found.epsilon:.3g} ({found.accountant})"
    kept = found.epsilon <= claimed * (1 + ROUNDING)
    return kept, f"{told}, claimed is {claimed:.3g}"


def _gradients(exam: Exam) -> tuple[bool, str]:
    samples = exam.units(UNITS, IMAGES)
    found = _each(exam.step(MAPPER, samples, IMAGES))
    wanted = mapper_gradients(exam.trainer, exam.plan, samples)
    if found.shape != wanted.shape:
        return False, f"{len(wanted)} units went in, {len(found)} gradients came out"
    error = ((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max().item()
    return (
        error <= ROUNDING,
        f"largest relative difference {error:.1e} of {UNITS} units",
    )


def _moves(exam: Exam) -> tuple[bool, str]:
    samples = exam.units(UNITS, IMAGES)
    whole = _summed(exam.step(MAPPER, samples, IMAGES))
    largest = 0.0
    for unit in sorted({record.unit for record in samples.records}):
        without = samples.of_units(frozenset({unit}), inside=False)
        less = _summed(exam.step(MAPPER, without, IMAGES))
        largest = max(largest, (whole - less).norm().item() / TIGHT)
    return (
        largest <= 1 + ROUNDING,
        f"leaving out one of {UNITS} units moves it by up to {largest:.4f} clip norms",
    )


def _apart(exam: Exam) -> tuple[bool, str]:
    samples, other = exam.units(UNITS, IMAGES), exam.units(UNITS + 1, IMAGES)
    first = _each(exam.step(MAPPER, samples, IMAGES))[: UNITS - 1]
    second = _each(exam.step(MAPPER, swap_last(samples, other), IMAGES))[: UNITS - 1]
    if first.shape != second.shape:
        return False, "another record changes how many gradients there are"
    change = ((first - second).norm(dim=1) / first.norm(dim=1)).max().item()
    told = f"with one record replaced, the others' gradients change by {change:.1e}"
    return change <= ROUNDING, f"{told} of their norm at most"


def _whole(exam: Exam, training: str) -> tuple[bool, str]:
    images = IMAGES + 1
    samples = exam.units(1, images)
    norm = _summed(exam.step(training, samples, images)).norm().item() / TIGHT
    return (
        norm <= 1 + ROUNDING,
        f"a unit of {images} like images adds {norm:.4f} clip norms",
    )


def _noise(exam: Exam, training: str) -> tuple[bool, str]:
    """Noise of full steps: what is released, minus the sum."""
    plan = exact(exam.plan, STAGES[training], images=1, clip=TIGHT)
    return _judge(exam, training, plan, lambda step: step.released - _summed(step))


def _empty(exam: Exam, training: str) -> tuple[bool, str]:
    """Noise of steps that nobody joins: all that is released."""
    plan = exact(exam.plan, STAGES[training], images=1, clip=TIGHT, rate=RARE)
    return _judge(exam, training, plan, lambda step: step.released)


def _judge(
    exam: Exam, training: str, plan: RunPlan, noise_in: Callable[[Step], Tensor]
) -> tuple[bool, str]:
    """Whether the noise has the plan's deviation, and is another one in every step."""
    clip, noise = noise_of(plan, training)
    samples = exam.units(UNITS, 1)
    drawn: list[Tensor] = []
    while len(drawn) < LEAST or (len(drawn) < MOST and sum(map(len, drawn)) < ENOUGH):
        torch.manual_seed(0)  # noise that follows it would come out twice
        drawn += [noise_in(s) for s in exam.trace(training, samples, plan).steps]
    deviation = torch.cat(drawn).double().square().mean().sqrt().item() / (clip * noise)
    pair = torch.stack([drawn[0], drawn[-1]]).double()
    alike = torch.corrcoef(pair)[0, 1].nan_to_num(1.0).abs().item()
    fresh = alike <= ALIKE / len(drawn[0]) ** 0.5
    slack = max(NOISE_ERROR, ALIKE / (2 * sum(map(len, drawn))) ** 0.5)
    told = f"its deviation is {deviation:.3f} of what the plan asks"
    return (
        abs(deviation - 1) <= slack and fresh,
        told + (", another draw every time" if fresh else ", the same draw twice"),
    )


def mapper_gradients(trainer: Trainer, plan: RunPlan, samples: Samples) -> Tensor:
    """Gradient (units, d) of each unit's mean loss, one unit at a time.

    The targets are those of the base bundle's prior, read again from disk.
    """
    bench = trainer.restart()
    prior = VisualPrior.from_pretrained(bench.bundle.part("visual_prior"))
    seen = see(prior.to(bench.device), samples)
    weights = list(bench.mapper.parameters())
    found = []
    for rows in samples.by_unit():
        chosen = list(rows)
        loss = align_loss(
            bench.mapper,
            samples.embeddings[chosen].to(bench.device),
            seen.anatomy[chosen].to(bench.device),
            seen.style[chosen].to(bench.device),
            plan.align.decoder,
        ).mean()
        parts = torch.autograd.grad(loss, weights)
        found.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(found)


def _each(step: Step) -> Tensor:
    if step.each is None:
        raise NotShownError("the engine shows no gradients per unit")
    return step.each


def _summed(step: Step) -> Tensor:
    if step.summed is None:
        raise NotShownError("the engine shows no sum before its noise")
    return step.summed
