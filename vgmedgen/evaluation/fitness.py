"""Measures at a site whether a release is worse than what it would take the place of."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import ExchangeError, ReleaseError
from vgmedgen.evaluation.denoising import heldout_losses
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.release.fitness import BASE, Fitness
from vgmedgen.release.store import Store
from vgmedgen.release.verify import plan_of
from vgmedgen.release.weights import weights_of
from vgmedgen.training.align import map_text
from vgmedgen.training.rounds import Workbench
from vgmedgen.training.samples import Samples

log = logging.getLogger(__name__)

DRAWS = 8  # timesteps per held-out image

Weights = Mapping[str, Mapping[str, np.ndarray]]


def heldout_loss(
    bench: Workbench, samples: Samples, weights: Weights, seed: int
) -> float:
    """Mean denoising loss per image of `samples`.

    Args:
        bench: its models are left with `weights`.
        samples: held out, at least one.
        weights: both groups of the exchange.
        seed: of timesteps and noise.
    """
    bench.take(weights)
    losses = heldout_losses(
        bench.generator,
        bench.schedule,
        samples.latents,
        map_text(bench.mapper, samples.embeddings),
        draws=DRAWS,
        seed=seed,
    )
    return losses.mean().item()


def measure(
    bench_of: Callable[[RunPlan], Workbench],
    samples: Samples,
    releases: Path,
    plan: RunPlan,
    weights: Weights,
    margin: float,
) -> Fitness:
    """Compare a release with the base, and with the release in use if there is one.

    Args:
        bench_of: models of the site's base for a plan.
        samples: the site's held-out ones, at least one.
        releases: folder of the site's releases.
        plan: of the release's run.
        weights: of the release.
        margin: share by which it may be worse.
    """
    bench, seed = bench_of(plan), plan.seed
    before = {BASE: heldout_loss(bench, samples, _base(bench), seed)}
    loss = heldout_loss(bench, samples, weights, seed)
    store = Store(releases)
    try:
        used = store.current()
        its = plan_of(used.release)
        own = bench_of(its)
        held = weights_of(used.release, own.bundle, its, own)
        before[used.name] = heldout_loss(own, samples, held, seed)
    except (ReleaseError, ExchangeError) as error:
        if store.has_pointer():
            log.info("the release in use cannot be compared with: %s", error)
    return Fitness(loss=loss, before=before, margin=margin)


def _base(bench: Workbench) -> Weights:
    """Weights with which the models draw as the base does: no LoRA factor B adds any."""
    start = TextMapper.from_pretrained(bench.bundle.part("text_mapper"))
    mapper = {n: t.detach().numpy() for n, t in start.shared_state().items()}
    lora = {
        name: np.zeros_like(array) if name.endswith(".B") else array
        for name, array in bench.states()["lora"].items()
    }
    return {"mapper": mapper, "lora": lora}
