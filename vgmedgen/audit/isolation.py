"""Does a unit's loss read anything but its own record and what is public?

A training is begun in two worlds. One unit has the same record in both; of every other
unit all is different: images, masks, latents, captions, and how many images. Then the loss
that the training itself uses is asked about that unit, on the same weights and the same
chance: loss and gradient must be equal to the bit. Whatever was centred, scaled, fitted or
remembered from others' records would show in some bit.

What trainings with noise leave behind is taken out by setting their weights back: that was
paid for.
"""

import dataclasses
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vgmedgen.audit.fabricated import fabricate
from vgmedgen.audit.trainer import one_round
from vgmedgen.audit.whole import RUN, SITE, parts, same_seeds
from vgmedgen.config.plan import RunPlan
from vgmedgen.data.cache import Cache
from vgmedgen.privacy.plan import LORA, MAPPER, PRIOR
from vgmedgen.privacy.recording import LossFn, recorded_by
from vgmedgen.training import rounds
from vgmedgen.training.order import Order
from vgmedgen.training.rounds import Arrays, Desk, Workbench
from vgmedgen.training.samples import Samples

STEPS = 3  # of each training, in which something could be remembered
CHANCES = 2  # seeds of timesteps, noise and dropout
BESIDE = 3  # rows of other units in one batch with the unit's


@dataclass(frozen=True)
class Answer:
    """What a loss says of one unit in one world."""

    question: str
    losses: Tensor
    gradients: tuple[Tensor, ...]


class Probe:
    """Asks each training's loss about one unit, once the training is over.

    Args:
        models: weights that may train, by training.
        rows: of the unit.
        others: rows of other units.
    """

    def __init__(
        self,
        models: Mapping[str, Sequence[nn.Parameter]],
        rows: Sequence[int],
        others: Sequence[int],
    ) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self._models, self._rows, self._others = models, rows, others

    def begin(self, weights: Mapping[str, nn.Parameter], loss: LossFn) -> LossFn:
        """Keep the loss, and where the weights start."""
        self._weights, self._loss = list(weights.values()), loss
        self._start = [weight.detach().clone() for weight in self._weights]
        first = id(self._weights[0])
        owners = (
            name
            for name, own in self._models.items()
            if first in {id(weight) for weight in own}
        )
        self._name = next(owners, "a training that the plan does not know")
        return loss

    def graded(self) -> None:
        """Nothing to ask yet."""

    def drew(self, noise: Tensor) -> None:
        """Nothing to ask yet."""

    def noised(self) -> None:
        """Nothing to ask yet."""

    def end(self) -> None:
        """Ask about the unit, with the weights back where they started."""
        with torch.no_grad():
            for weight, value in zip(self._weights, self._start, strict=True):
                weight.copy_(value)
        self.answers[self._name] = [
            self._ask(number, seed, rows)
            for number in range(STEPS)
            for seed in range(CHANCES)
            for rows in ([*self._rows], [*self._rows, *self._others])
        ]

    def _ask(self, number: int, seed: int, rows: list[int]) -> Answer:
        draw = torch.Generator().manual_seed(seed)
        losses = self._loss(number, torch.tensor(rows), draw)[: len(self._rows)]
        gradients = torch.autograd.grad(losses.sum(), self._weights, allow_unused=True)
        return Answer(
            question=f"step {number + 1}, {len(rows)} rows in the batch",
            losses=losses.detach().cpu(),
            gradients=tuple(
                torch.zeros(()) if g is None else g.detach().cpu() for g in gradients
            ),
        )


def leaks(
    bench: Workbench,
    start: Mapping[str, Arrays],
    plan: RunPlan,
    samples: Samples,
    *,
    units: int,
) -> dict[str, list[str]]:
    """What changes for a unit with others' records, by training; nothing, if all is well.

    Args:
        bench: models of the site's base, opened for this audit alone.
        start: both groups of the exchange, as the run starts.
        plan: of the run, with DP.
        samples: of the site.
        units: so many are asked about, chosen by chance.
    """
    names = sorted({record.unit for record in samples.records})
    chosen = random.SystemRandom().sample(names, min(units, len(names)))
    short = one_round(one_round(plan, "align", steps=STEPS), "generate", steps=STEPS)
    found: dict[str, list[str]] = {}
    for unit in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            here = _world(samples, unit, Path(scratch, "here"), seed=0)
            there = _world(samples, unit, Path(scratch, "there"), seed=1)
            for stage in ("align", "generate"):
                pair = [
                    _answers(bench, start, short, stage, world, unit, Path(scratch))
                    for world in (here, there)
                ]
                for training in pair[0].keys() | pair[1].keys():
                    differ = _differences(*(one.get(training, []) for one in pair))
                    found.setdefault(training, []).extend(differ)
    return found


def _answers(
    bench: Workbench,
    start: Mapping[str, Arrays],
    plan: RunPlan,
    stage: str,
    samples: Samples,
    unit: str,
    folder: Path,
) -> dict[str, list[Answer]]:
    rows = [k for k, record in enumerate(samples.records) if record.unit == unit]
    others = [k for k in range(len(samples)) if k not in rows][:BESIDE]
    order = Order(run=RUN, number=1, stage=stage, plan=plan, weights=start)
    bench.take(start)
    models = {name: [weight for weight, _ in own] for name, own in parts(bench).items()}
    models[PRIOR] = list(bench.prior.parameters())
    probe = Probe(models, rows, others)
    with (
        tempfile.TemporaryDirectory(dir=folder) as scratch,
        same_seeds(),
        recorded_by(probe),
    ):
        rounds.train(bench, Desk(SITE, samples, Path(scratch)), order)
    wanted = {LORA} if stage == "generate" else {MAPPER}
    return {name: probe.answers.get(name, []) for name in wanted | probe.answers.keys()}


def _differences(here: Sequence[Answer], there: Sequence[Answer]) -> list[str]:
    if not here or len(here) != len(there):
        return ["the training did not show its loss"]
    differ = []
    for one, other in zip(here, there, strict=True):
        if not torch.equal(one.losses, other.losses):
            change = (one.losses - other.losses).abs().max().item()
            differ.append(f"its loss changes by {change:.1e} ({one.question})")
        pairs = zip(one.gradients, other.gradients, strict=True)
        if not all(torch.equal(a, b) for a, b in pairs):
            differ.append(f"its gradient changes ({one.question})")
    return differ


def _world(samples: Samples, unit: str, folder: Path, *, seed: int) -> Samples:
    """The unit's own record, and as many other units of whom all is made up.

    The units keep their names, which are public; how many images each has differs.
    """
    others = sorted({r.unit for r in samples.records} - {unit})
    own = samples.of_units(frozenset({unit}))
    cache = Cache(folder)
    for key in own.keys:
        cache.put(key, samples.cache.get(key, "image", "mask"), {})
    like = fabricate(len(others), 1 + seed, samples, folder, seed=seed)
    names = {name: others[k] for k, name in enumerate(_names(like))}
    made = tuple(
        dataclasses.replace(record, unit=names[record.unit]) for record in like.records
    )
    # in one world the unit stands first, in the other last: its place is no record of it
    sides = [(own.records, own), (made, like)]
    if seed:
        sides.reverse()
    return Samples(
        tuple(record for records, _ in sides for record in records),
        tuple(caption for _, side in sides for caption in side.captions),
        torch.cat([side.latents for _, side in sides]),
        torch.cat([side.embeddings for _, side in sides]),
        cache,
        tuple(key for _, side in sides for key in side.keys),
    )


def _names(samples: Samples) -> list[str]:
    return sorted({record.unit for record in samples.records})
