"""DP-SGD on units: what one step adds to the weights, and a self-test of it.

A step takes each unit with the plan's rate (Poisson), averages a unit's gradient over its
images and noise draws, clips it, sums over units, adds Gaussian noise of the plan's
multiplier times the clip norm, and divides by the expected number of units, which is
public. Source: Abadi et al. 2016, arXiv 1607.00133; averaging before the clip: Dockhorn
et al. 2023, arXiv 2210.09929.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from vgmedgen.config.ranges import positive, within
from vgmedgen.errors import TrainingError
from vgmedgen.privacy.accountant import Mechanism
from vgmedgen.privacy.persample import PerUnit
from vgmedgen.privacy.randomness import Secret
from vgmedgen.privacy.recording import LossFn, recorder

TOLERANCE = 1e-4  # of the self-test, relative to the gradient's norm
TESTED_UNITS = 3  # one or two could hide a wrong layout
ROWS = 64  # rows in one forward pass; a choice of the machine, without effect on noise


@dataclass(frozen=True, kw_only=True)
class Private:
    """One training of one site under its share of a privacy plan."""

    units: tuple[tuple[int, ...], ...]  # rows of each unit's images
    mechanism: Mechanism
    clip: float  # L2 norm of one unit's gradient over everything that trains
    images: int = 1  # of each unit in a step
    draws: int = 1  # noise draws per image
    ema: float = 0.0  # decay of the average of the weights over steps; 0 keeps the last
    secret: Secret = field(default_factory=Secret, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check that every unit has images, no image two units, and ranges."""
        positive("privacy", clip=self.clip, images=self.images, draws=self.draws)
        within("privacy", 0, 0.9999, ema=self.ema)
        rows = [row for unit in self.units for row in unit]
        if not self.units or not all(self.units) or len(set(rows)) < len(rows):
            raise ValueError("every unit needs an image, and no image may be in two")

    @property
    def expected(self) -> float:
        """Units that a step expects: the public denominator."""
        return self.mechanism.rate * len(self.units)

    def draw(self) -> list[int]:
        """Units that join the next step."""
        return self.secret.joins(len(self.units), self.mechanism.rate)

    def rows(self, units: Sequence[int]) -> Tensor:
        """Rows (units x images x draws,) of a pass, a unit's rows side by side.

        A unit with fewer images than are asked for gives some of them again, one with
        more gives a fresh choice of them in every step.
        """
        chosen = []
        for unit in units:
            rows = self.units[unit]
            keys = self.secret.uniform(len(rows)).tolist()
            order = [row for _, row in sorted(zip(keys, rows, strict=True))]
            chosen += [order[k % len(rows)] for k in range(self.images)]
        return torch.tensor(chosen, dtype=torch.long).repeat_interleave(self.draws)

    def parts(self, units: Sequence[int]) -> list[Sequence[int]]:
        """The units of a step in parts that fit a forward pass; one, if there is none."""
        size = max(1, ROWS // (self.images * self.draws))
        return [units[k : k + size] for k in range(0, len(units), size)] or [()]


class PrivateOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimiser with noise that nobody can draw again.

    It differs in two things. Its noise comes from the site's secret, not from a
    generator that a seed repeats. And a unit whose gradient is not finite counts as
    zero: stopping would tell that such a unit is there.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, private: Private) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=private.mechanism.noise,
            max_grad_norm=private.clip,
            expected_batch_size=private.expected,
            loss_reduction="mean",
        )
        self._secret = private.secret

    @torch.no_grad()
    def clip_and_accumulate(self) -> None:
        """Add every unit's clipped gradient to `summed_grad`."""
        samples = [p.grad_sample.flatten(1) for p in self.params]
        norms = torch.stack([torch.linalg.vector_norm(s, dim=1) for s in samples])
        norm = torch.linalg.vector_norm(norms, dim=0)  # (units,)
        broken = ~torch.isfinite(norm)
        if broken.any():
            for sample in samples:
                sample[broken] = 0
            norm = norm.masked_fill(broken, 0)
        factor = self.max_grad_norm / norm.clamp_min(self.max_grad_norm)
        for weight, sample in zip(self.params, samples, strict=True):
            clipped = (factor @ sample).view_as(weight)
            held = weight.summed_grad
            weight.summed_grad = clipped if held is None else held + clipped

    def add_noise(self) -> None:
        """Put the noised sum into `grad`."""
        deviation = self.noise_multiplier * self.max_grad_norm
        weights = self.params
        sizes = [weight.numel() for weight in weights]
        # one call for all: small ones would cost several times as much
        noise = self._secret.normal((sum(sizes),), deviation)
        for weight, part in zip(weights, torch.split(noise, sizes), strict=True):
            drawn = part.view_as(weight).to(weight.device)
            weight.grad = weight.summed_grad + drawn

    def scale_grad(self) -> None:
        """Divide by the expected number of units, a public constant."""
        watch = recorder()
        if watch is not None:
            watch.noised()
        for weight in self.params:
            weight.grad.div_(self.expected_batch_size)


def step(
    loss: LossFn,
    number: int,
    per_unit: PerUnit,
    optimizer: PrivateOptimizer,
    private: Private,
) -> float:
    """One step of DP-SGD, whole.

    Returns:
        Mean loss over the rows that joined, NaN if none did: for the site's own eyes.
    """
    parts = private.parts(private.draw())
    draw = private.secret.generator()
    watch = recorder()
    total, count = 0.0, 0
    for place, part in enumerate(parts):
        optimizer.zero_grad()
        optimizer.signal_skip_step(place < len(parts) - 1)
        if part:
            losses = _backward(loss, number, private.rows(part), draw, per_unit, part)
            total, count = total + losses.sum().item(), count + len(losses)
        for weight in optimizer.params:
            # nobody joined, or a part of the model that this loss does not reach
            if weight.grad_sample is None:
                weight.grad_sample = weight.new_zeros(len(part), *weight.shape)
        if watch is not None:
            watch.graded()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total / count if count else math.nan


def _backward(
    loss: LossFn,
    number: int,
    rows: Tensor,
    draw: torch.Generator,
    per_unit: PerUnit,
    units: Sequence[int],
) -> Tensor:
    """Leave every unit's mean gradient in `grad_sample`; the rows' losses."""
    per_unit.units = len(units)
    losses = loss(number, rows, draw)
    if losses.shape != rows.shape:
        raise TrainingError(
            f"the loss has shape {tuple(losses.shape)} for {len(rows)} rows; under DP it "
            "must be one number per row"
        )
    losses.view(len(units), -1).mean(1).sum().backward()  # type: ignore[no-untyped-call]
    return losses.detach()


def self_test(
    loss: LossFn,
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    private: Private,
) -> None:
    """Refuse to train unless units are apart and their gradients exact.

    Three units' gradients are compared with what autograd gives for each unit's loss
    alone, and the first unit's loss must not change with the others' images.

    Raises:
        TrainingError: naming the tensor that differs; nothing has been trained.
    """
    units = list(range(min(TESTED_UNITS, len(private.units))))
    rows = private.rows(units)
    state = private.secret.generator().get_state()

    def losses_of(chosen: Tensor) -> Tensor:
        return loss(0, chosen, torch.Generator().set_state(state))

    each = losses_of(rows).view(len(units), -1).mean(1)
    size = len(rows) // len(units)
    alone = losses_of(rows[:size].repeat(len(units))).view(len(units), -1).mean(1)[0]
    if not each.isfinite().all():
        return  # such a unit will count as zero; a refusal would tell of it
    if not torch.isclose(alone, each[0], rtol=TOLERANCE, atol=TOLERANCE**2):
        raise TrainingError(
            "the self-test failed: a unit's loss changes with the other units in its "
            "batch; no layer or loss may look at more than one sample under DP"
        )
    names = list(weights)
    wanted = [_alone(one, weights) for one in each]
    with PerUnit(model, weights) as per_unit:
        draw = torch.Generator().set_state(state)
        _backward(loss, 0, rows, draw, per_unit, units)
        found = {name: _sample(weight, len(units)) for name, weight in weights.items()}
    for unit, gradients in enumerate(wanted):
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
        if not math.isfinite(norm):
            continue  # it will count as zero too
        for name, gradient in zip(names, gradients, strict=True):
            error = (found[name][unit] - gradient).norm().item()
            if not error <= TOLERANCE * max(norm, TOLERANCE):
                raise TrainingError(
                    f"the self-test failed: the gradient of one unit at {name} is off by "
                    f"{error:.2g} of {norm:.2g}; nothing was trained"
                )


def _alone(loss: Tensor, weights: Mapping[str, nn.Parameter]) -> list[Tensor]:
    gradients = torch.autograd.grad(
        loss, list(weights.values()), retain_graph=True, allow_unused=True
    )
    return [
        torch.zeros_like(weight) if gradient is None else gradient
        for weight, gradient in zip(weights.values(), gradients, strict=True)
    ]


def _sample(weight: nn.Parameter, units: int) -> Tensor:
    found: Tensor | None = getattr(weight, "grad_sample", None)
    return weight.new_zeros(units, *weight.shape) if found is None else found.clone()
