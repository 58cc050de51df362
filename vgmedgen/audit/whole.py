"""A site's whole training under DP, run once for the auditor: every round, every step.

The rounds are those of production, on the site's own samples, one after the other as if
this site were alone in the run. They run on models that are thrown away, in a folder that
is thrown away, and the recording stays in memory: nothing of it is sent or kept.
"""

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from vgmedgen.audit.recorder import Recorder
from vgmedgen.audit.recording import Recording
from vgmedgen.config.plan import RunPlan
from vgmedgen.models import lora
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.privacy.plan import LORA, MAPPER, PRIOR
from vgmedgen.privacy.recording import recorded_by
from vgmedgen.training import rounds
from vgmedgen.training.loop import seed_of
from vgmedgen.training.order import Order, Outcome
from vgmedgen.training.rounds import Arrays, Desk, Workbench
from vgmedgen.training.samples import Samples

SITE, RUN = "audit", "audit"
SEED = 0  # of every generator that is not secret, the same before each round


@dataclass(frozen=True)
class Whole:
    """All that was recorded of one run of the training."""

    recordings: tuple[Recording, ...]
    faults: tuple[str, ...]  # of what the rounds answered
    units: tuple[tuple[int, ...], ...]  # rows of each unit's images

    def of(self, training: str) -> tuple[Recording, ...]:
        """Its rounds, in order."""
        return tuple(r for r in self.recordings if r.terms.training == training)


def trainings(plan: RunPlan) -> dict[str, int]:
    """Trainings of a plan with DP, and in how many rounds each runs."""
    found = {MAPPER: plan.align_rounds, LORA: plan.generate_rounds}
    if plan.privacy.prior == "private":
        found[PRIOR] = plan.align_rounds
    return found


def record(
    bench: Workbench,
    start: Mapping[str, Arrays],
    plan: RunPlan,
    samples: Samples,
    *,
    spots: int,
    first: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Whole:
    """Train as the plan says, and record it.

    Args:
        bench: models of the site's base, opened for this audit alone.
        start: both groups of the exchange, as the run starts.
        plan: of the run, with DP.
        samples: that train.
        spots: steps of each training and round whose gradients are computed again.
        first: only the first round of each stage.
        progress: called with words for every round.
    """
    stages = [("align", turn + 1) for turn in range(plan.align_rounds)]
    stages += [("generate", turn + 1) for turn in range(plan.generate_rounds)]
    weights, recordings, faults = dict(start), [], []
    with tempfile.TemporaryDirectory() as scratch:
        desk = Desk(SITE, samples, Path(scratch))
        for number, (stage, turn) in enumerate(stages, 1):
            if first and turn > 1:
                continue
            progress(f"{stage} round {turn}")
            order = Order(
                run=RUN,
                number=number,
                stage=stage,
                plan=plan,
                weights=weights,
                turn=turn,
            )
            bench.take(weights)
            recorder = Recorder(
                plan,
                samples.units,
                number,
                {**parts(bench), PRIOR: _prior(bench, desk, order)},
                lambda steps: _some(steps, spots),
            )
            with same_seeds():
                outcome = train(bench, desk, order, recorder)
            recordings += recorder.recordings
            faults += _faults(bench, order, recorder, outcome, samples)
            group = "mapper" if stage == "align" else "lora"
            weights = {**weights, group: outcome.state}
    return Whole(tuple(recordings), tuple(faults), samples.by_unit())


def train(bench: Workbench, desk: Desk, order: Order, recorder: Recorder) -> Outcome:
    """One round as in production, recorded."""
    # torch tells of every step of every optimiser: no engine can avoid being seen
    hook = register_optimizer_step_pre_hook(recorder.stepping)
    try:
        with recorded_by(recorder):
            return rounds.train(bench, desk, order)
    finally:
        hook.remove()


def parts(bench: Workbench) -> dict[str, list[tuple[nn.Parameter, Tensor]]]:
    """What may train in mapper and generator, each weight with what it holds now."""
    weights = {
        MAPPER: list(bench.mapper.parameters()),
        LORA: list(lora.parameters(bench.generator).values()),
    }
    return {
        name: [(weight, weight.detach().clone()) for weight in own]
        for name, own in weights.items()
    }


@contextmanager
def same_seeds() -> Iterator[None]:
    """Within it every generator that a seed repeats starts from the same one.

    Noise that comes from such a generator is then the same in two rounds.
    """
    state, kept = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # noqa: NPY002  # what a careless engine may draw from
            random.seed(SEED)
            yield
    finally:
        random.setstate(state)
        np.random.set_state(kept)  # noqa: NPY002


def _prior(
    bench: Workbench, desk: Desk, order: Order
) -> list[tuple[nn.Parameter, Tensor]]:
    """The prior's weights with the start that the plan gives them in a round."""
    path = desk.folder / RUN / f"round-{order.number - 1:04d}" / "prior.safetensors"
    if path.is_file():
        state = load_file(path)
    elif order.plan.align.common_start:
        public = VisualPrior.from_pretrained(bench.bundle.part("visual_prior"))
        state = public.state_dict()
    else:
        seed = seed_of(order.plan.seed, desk.site, "own")
        state = VisualPrior.like(bench.prior, seed).state_dict()
    return [(weight, state[name]) for name, weight in bench.prior.named_parameters()]


def _some(steps: int, count: int) -> frozenset[int]:
    """So many of the steps, by a choice that nobody knows before."""
    return frozenset(random.SystemRandom().sample(range(steps), min(count, steps)))


def _faults(
    bench: Workbench,
    order: Order,
    recorder: Recorder,
    outcome: Outcome,
    samples: Samples,
) -> list[str]:
    """What a round did or answered beyond its recorded trainings."""
    where, group = f"round {order.number}", "mapper"
    if order.stage == "generate":
        group = "lora"
    bench.take(order.weights)
    with torch.no_grad():
        for weight, value in recorder.sent:
            weight.copy_(value)
    expected = bench.states()[group]
    faults = []
    differ = [
        name
        for name in sorted(expected.keys() | outcome.state.keys())
        if name not in expected
        or name not in outcome.state
        or not np.array_equal(expected[name], outcome.state[name])
    ]
    if differ:
        faults.append(
            f"{where}: {len(differ)} tensors of the answer are not what the noised sums "
            f"make of the start, {differ[0]} among them"
        )
    if recorder.unbooked:
        faults.append(f"{where}: {recorder.unbooked} optimiser steps outside the plan")
    if outcome.loss_sum is not None or outcome.units != samples.units:
        faults.append(f"{where}: it answers a number that no noise covers")
    return faults
