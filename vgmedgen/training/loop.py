"""The one training loop, its twin under DP, and the checkpoint of a killed site.

Without DP all randomness of step k comes from a generator seeded by (seed, k), so a step
can be repeated alone: a resumed training equals an uninterrupted one to the bit.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vgmedgen.errors import TrainingError
from vgmedgen.files import write_bytes
from vgmedgen.privacy import engine
from vgmedgen.privacy.engine import Private, PrivateOptimizer
from vgmedgen.privacy.persample import PerUnit
from vgmedgen.privacy.recording import LossFn, recorder

CLIP_NORM = 1.0  # L2 norm over everything that trains together
Progress = Callable[[int], None]  # is told how many steps are done

WARMUP = 0.1  # share of the steps over which the learning rate rises
WEIGHT_DECAY = 1e-4  # of AdamW


def seed_of(*words: object) -> int:
    """A 63-bit seed from the words that name what it is for."""
    text = "/".join(str(word) for word in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_of(*words: object) -> torch.Generator:
    """A CPU generator seeded by `seed_of`."""
    return torch.Generator().manual_seed(seed_of(*words))


def pick(count: int, batch: int, generator: torch.Generator) -> Tensor:
    """Indices (B,) of a batch drawn without replacement from `count` samples."""
    return torch.randperm(count, generator=generator)[:batch]


def parts(count: int, size: int) -> list[Tensor]:
    """The rows 0 to `count` in order, at most `size` at a time."""
    return [torch.arange(k, min(k + size, count)) for k in range(0, count, size)]


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to a tenth (Loshchilov and Hutter, 1608.03983)."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))


@dataclass
class TrainLog:
    """Mean loss of every step; NaN where under DP no unit joined."""

    losses: list[float] = field(default_factory=list)

    def told(self) -> list[float | None]:
        """The losses as JSON can hold them."""
        return [loss if math.isfinite(loss) else None for loss in self.losses]

    def tail_mean(self) -> float:
        """Mean loss of the last fifth of the steps, of those in which a unit joined."""
        last = self.losses[-max(1, len(self.losses) // 5) :]
        last = [loss for loss in last if math.isfinite(loss)] or [0.0]
        return sum(last) / len(last)


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps its state, and how often it writes it."""

    path: Path
    every: int = 50  # steps

    def save(
        self,
        weights: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        log: TrainLog,
    ) -> None:
        """Write weights, optimiser moments and losses, whole or not at all."""
        tensors = {f"weight.{name}": w.detach() for name, w in weights.items()}
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer.{index}.{key}"] = value
        tensors["losses"] = torch.tensor(log.losses, dtype=torch.float64)
        write_bytes(
            self.path, save({n: t.contiguous().clone() for n, t in tensors.items()})
        )

    def restore(
        self, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> TrainLog:
        """Put back what `save` wrote; an empty log if there is nothing."""
        if not self.path.is_file():
            return TrainLog()
        stored = load_file(self.path)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(stored[f"weight.{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in stored.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return TrainLog(stored["losses"].tolist())


def fit(
    loss_of: LossFn,
    weights: Mapping[str, Tensor],
    *,
    count: int,
    batch: int,
    steps: int,
    rate: float,
    seed: int,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> TrainLog:
    """Train `weights` in place.

    Args:
        loss_of: the loss of each row of a batch.
        weights: everything that trains, by name: clipped and scheduled together.
        count: samples there are.
        batch: samples in a step, drawn without replacement.
        steps: optimiser steps.
        rate: peak learning rate of AdamW.
        seed: of all randomness in the steps.
        checkpoint: goes on from it if it exists, and removes it at the end.
        progress: is told the number of steps done, after each.

    Raises:
        TrainingError: at the first loss that is not finite; the checkpoint is removed.
    """
    trained = list(weights.values())
    optimizer = adamw(trained, rate)
    log = checkpoint.restore(weights, optimizer) if checkpoint else TrainLog()
    for number in range(len(log.losses), steps):
        set_rate(optimizer, rate * rate_factor(number, steps))
        draw = generator_of(seed, number)
        loss = loss_of(number, pick(count, batch, draw), draw).mean()
        value = loss.item()
        if not math.isfinite(value):
            if checkpoint:
                checkpoint.path.unlink(missing_ok=True)
            raise TrainingError(
                f"loss is {value} at step {number + 1} of {steps}; nothing was saved or "
                "sent; lower the learning rate or look at the images"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM)
        optimizer.step()
        log.losses.append(value)
        if checkpoint and (number + 1) % checkpoint.every == 0:
            checkpoint.save(weights, optimizer, log)
        if progress:
            progress(number + 1)
    if checkpoint:
        checkpoint.path.unlink(missing_ok=True)
    return log


def fit_private(
    loss_of: LossFn,
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    *,
    private: Private,
    rate: float,
    checkpoint: Checkpoint | None = None,
) -> TrainLog:
    """Train `weights` in place by DP-SGD; nothing else of `model` may train meanwhile.

    Batches and noise come from the operating system and never twice: a training that
    goes on from a checkpoint ends elsewhere than an uninterrupted one would have, at
    the same cost, since what a killed process drew has not left the site.

    Args:
        loss_of: the loss of each row; no row may depend on another.
        model: holds the weights.
        weights: everything that trains, by name: one clip over all of it.
        private: units, noise, rate, steps and clip.
        rate: peak learning rate of AdamW.
        checkpoint: goes on from it if it exists, and removes it at the end.

    Raises:
        ConfigError: if a weight's layer has no rule for gradients per unit.
        TrainingError: if the self-test finds a gradient that is not exact.
    """
    with _only(model, weights):
        engine.self_test(loss_of, model, weights, private)
        watch = recorder()
        if watch is not None:
            loss_of = watch.begin(weights, loss_of)
        optimizer = adamw(list(weights.values()), rate)
        average = {name: w.detach().clone() for name, w in weights.items()}
        kept = {**weights, **{f"average.{name}": w for name, w in average.items()}}
        log = checkpoint.restore(kept, optimizer) if checkpoint else TrainLog()
        noisy = PrivateOptimizer(optimizer, private)
        steps = private.mechanism.steps
        with PerUnit(model, weights) as per_unit:
            for number in range(len(log.losses), steps):
                set_rate(optimizer, rate * rate_factor(number, steps))
                value = engine.step(loss_of, number, per_unit, noisy, private)
                log.losses.append(value)
                decay = min(private.ema, number / (number + 1))
                for name, held in average.items():
                    held.lerp_(weights[name].detach(), 1 - decay)
                if checkpoint and (number + 1) % checkpoint.every == 0:
                    checkpoint.save(kept, optimizer, log)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(average[name])
        if watch is not None:
            watch.end()
    if checkpoint:
        checkpoint.path.unlink(missing_ok=True)
    return log


def adamw(weights: Sequence[Tensor], rate: float) -> torch.optim.AdamW:
    """The optimiser of every training."""
    return torch.optim.AdamW(weights, lr=rate, weight_decay=WEIGHT_DECAY)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@contextmanager
def _only(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Within it nothing of `model` but `weights` asks for a gradient."""
    trained = {id(weight) for weight in weights.values()}
    paused = [
        weight
        for weight in model.parameters()
        if weight.requires_grad and id(weight) not in trained
    ]
    for weight in paused:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in paused:
            weight.requires_grad_(True)
