"""Membership: can the losses tell which units trained?

The score of an image is its loss under the base minus its loss under the model, with the
same timesteps and noises for both: what is hard in an image by itself falls out, and what
is left is what training changed. Source: Watson et al. 2021, arXiv 2111.08440 (difficulty
calibration), applied to denoising losses.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vgmedgen.audit import statistics
from vgmedgen.audit.models import Model
from vgmedgen.audit.statistics import Interval, Scores
from vgmedgen.evaluation.denoising import heldout_losses
from vgmedgen.models.objective import Schedule
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.models.text.mapper import align_loss
from vgmedgen.training.align import device_of, map_text, see
from vgmedgen.training.samples import Samples

FEWEST = 8  # units on either side below which nothing can be said


@dataclass(frozen=True, kw_only=True)
class Membership:
    """What one attack by losses found."""

    attack: str  # images | captions
    model: str
    members: int  # units
    others: int
    auc: Interval
    control: Interval  # AUC of the base alone, which has seen neither side
    found: Interval  # TPR at 1 % FPR
    epsilon: float  # lower bound; 0 where the two sides differ by themselves
    scores: tuple[tuple[float, ...], tuple[float, ...]]  # of members and others

    @property
    def comparable(self) -> bool:
        """Whether the base, too, takes both sides for alike."""
        return self.control.low <= 0.5 <= self.control.high  # noqa: PLR2004


def per_unit(values: Tensor, samples: Samples) -> Scores:
    """Mean (units,) of values (N,) over the images of each unit, in order of names."""
    of_unit: defaultdict[str, list[float]] = defaultdict(list)
    for record, value in zip(samples.records, values.tolist(), strict=True):
        of_unit[record.unit].append(value)
    return np.array([np.mean(of_unit[unit]) for unit in sorted(of_unit)])


def image_losses(
    model: Model, schedule: Schedule, samples: Samples, *, draws: int, seed: int
) -> Tensor:
    """Denoising loss (N,) of each image under its caption."""
    return heldout_losses(
        model.generator,
        schedule,
        samples.latents,
        map_text(model.mapper, samples.embeddings),
        draws=draws,
        seed=seed,
    )


@torch.no_grad()
def caption_losses(model: Model, prior: VisualPrior, samples: Samples) -> Tensor:
    """How far the mapper is from what the base's prior sees: (N,).

    Without the decoder, which no attacker has.
    """
    seen = see(prior, samples)
    mapper, device = model.mapper.eval(), device_of(model.mapper)
    return align_loss(
        mapper,
        samples.embeddings.to(device),
        seen.anatomy.to(device),
        seen.style.to(device),
        0.0,
    ).cpu()


def compare(
    attack: str,
    model: str,
    base: tuple[Scores, Scores],
    trained: tuple[Scores, Scores],
    *,
    delta: float,
    confidence: float,
    draws: int,
) -> Membership:
    """Judge losses per unit of (members, others), under the base and the model.

    Args:
        attack: what was measured, for the page.
        model: which model, for the page.
        base: losses under the base.
        trained: losses under the model.
        delta: of the claim.
        confidence: of the bound.
        draws: of the bootstrap.
    """
    members, others = (b - t for b, t in zip(base, trained, strict=True))
    control = statistics.bootstrap(statistics.auc, -base[0], -base[1], draws=draws)
    found = Membership(
        attack=attack,
        model=model,
        members=len(members),
        others=len(others),
        auc=statistics.bootstrap(statistics.auc, members, others, draws=draws),
        control=control,
        found=statistics.bootstrap(statistics.true_rate, members, others, draws=draws),
        epsilon=statistics.rates_bound(
            members, others, delta=delta, confidence=confidence
        ),
        scores=(tuple(members.tolist()), tuple(others.tolist())),
    )
    if found.comparable:
        return found
    # sides that differ before training prove nothing about training
    return Membership(**{**found.__dict__, "epsilon": 0.0})


def attack(
    base: Model,
    models: Sequence[Model],
    prior: VisualPrior,
    schedule: Schedule,
    training: Samples,
    heldout: Samples,
    *,
    delta: float,
    confidence: float,
    draws: int,
    seed: int,
    resamples: int = 1000,
) -> list[Membership]:
    """Attack every model by its denoising losses and by its mapper's losses.

    Args:
        base: the untouched base.
        models: what was trained from it.
        prior: the base's.
        schedule: of the noise.
        training: samples that may have trained.
        heldout: samples that never did.
        delta: of the claim.
        confidence: of each bound.
        draws: timesteps and noises per image.
        seed: of both.
        resamples: of the bootstrap.

    Returns:
        Two findings per model; none if either side has fewer than `FEWEST` units.
    """
    if min(training.units, heldout.units) < FEWEST:
        return []

    def images(model: Model) -> tuple[Scores, Scores]:
        told = {"draws": draws, "seed": seed}
        first, second = (
            per_unit(image_losses(model, schedule, side, **told), side)
            for side in (training, heldout)
        )
        return first, second

    def captions(model: Model) -> tuple[Scores, Scores]:
        first, second = (
            per_unit(caption_losses(model, prior, side), side)
            for side in (training, heldout)
        )
        return first, second

    found = []
    for name, losses in (("images", images), ("captions", captions)):
        before = losses(base)
        found += [
            compare(
                name,
                model.name,
                before,
                losses(model),
                delta=delta,
                confidence=confidence,
                draws=resamples,
            )
            for model in models
        ]
    return found
