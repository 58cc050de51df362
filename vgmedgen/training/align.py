"""Stage `align`: the visual prior on the site's images, then the text mapper against it.

Anatomy and style axes are defined up to a rotation only, so mappers that were trained
against independent priors cannot be averaged. Two remedies: every site starts from the
bundle's prior, and from the second round on the anchor pulls the prior to where the
global mapper puts that image's caption.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgmedgen.config.plan import AlignConfig
from vgmedgen.models.prior.losses import anchor as anchor_loss
from vgmedgen.models.prior.losses import dice, kl, reconstruction, style_regression
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.models.text.mapper import TextMapper, align_loss
from vgmedgen.privacy.engine import Private
from vgmedgen.training.loop import (
    Checkpoint,
    Progress,
    TrainLog,
    fit,
    fit_private,
    seed_of,
)
from vgmedgen.training.samples import Samples

DICE_WEIGHT = 1.0
KL_WEIGHT = 0.001
STYLE_WEIGHT = 0.1


@dataclass(frozen=True)
class Latents:
    """What a prior sees in images: anatomy (N, A) and style (N, S)."""

    anatomy: Tensor
    style: Tensor


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters live."""
    return next(module.parameters()).device


@torch.no_grad()
def see(prior: VisualPrior, samples: Samples) -> Latents:
    """Visual latents of all samples; deterministic."""
    return look(prior, (samples.pixels([row])[0] for row in range(len(samples))))


@torch.no_grad()
def look(prior: VisualPrior, images: Iterable[Tensor]) -> Latents:
    """Visual latents of images (1, 3, H, W), each seen by itself.

    They are the mapper's targets: under a claim each has to be a function of its own
    image to the last bit, and a batch rounds by its size.
    """
    prior.eval()
    anatomy, style = [], []
    with torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        for image in images:
            seen = prior(image.to(device_of(prior)))
            anatomy.append(seen.anatomy.cpu())
            style.append(seen.style.cpu())
    return Latents(torch.cat(anatomy), torch.cat(style))


@torch.no_grad()
def map_text(mapper: TextMapper, embeddings: Tensor) -> Latents:
    """Where the mapper puts captions with these embeddings (N, E), each by itself."""
    mapper.eval()
    rows = torch.split(embeddings.to(device_of(mapper)), 1)
    mapped = [mapper(row) for row in rows]
    anatomy, style = zip(*mapped, strict=True)
    return Latents(torch.cat(anatomy).cpu(), torch.cat(style).cpu())


def prior_loss(
    prior: VisualPrior,
    image: Tensor,
    mask: Tensor,
    generator: torch.Generator,
    anchor: tuple[Latents, float] | None = None,
) -> Tensor:
    """Per-sample loss (B,) of the visual prior.

    Args:
        prior: in training mode.
        image: (B, 3, H, W) in [-1, 1].
        mask: (B, 1, H, W) of 0 and 1.
        generator: of the style noise.
        anchor: latents to be pulled to, and the weight of the pull.

    Source of the terms: VG-MedGen, arXiv 2603.10519, section on visual priors; the anchor
    is ours.
    """
    noise = torch.randn(len(image), prior.config.style, generator=generator)
    noise = noise.to(image.device)
    seen = prior(image, noise)
    loss = reconstruction(seen.reconstruction, image)
    loss = loss + DICE_WEIGHT * dice(seen.mask_logits, mask)
    loss = loss + KL_WEIGHT * kl(seen.style_mean, seen.style_logvar)
    drawn = torch.randn(noise.shape, generator=generator).to(image.device)
    loss = loss + STYLE_WEIGHT * style_regression(prior, seen.maps, drawn)
    if anchor is not None:
        target, weight = anchor
        pull = anchor_loss(seen.anatomy, seen.style_mean, target.anatomy, target.style)
        loss = loss + weight * pull
    return loss


def train_prior(
    prior: VisualPrior,
    samples: Samples,
    config: AlignConfig,
    *,
    seed: int,
    anchor: Latents | None = None,
    private: Private | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> TrainLog:
    """Fit the prior to the site's images; `anchor` holds one target per sample."""

    def loss_of(_: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        image, mask = (t.to(device) for t in samples.pixels(rows))
        pull = None
        if anchor is not None and config.anchor > 0:
            here = Latents(
                anchor.anatomy[rows].to(device), anchor.style[rows].to(device)
            )
            pull = (here, config.anchor)
        return prior_loss(prior, image, mask, generator, pull)

    device = device_of(prior)
    prior.train()
    weights = dict(prior.named_parameters())
    if private is not None:
        return fit_private(
            loss_of,
            prior,
            weights,
            private=private,
            rate=config.prior_rate,
            checkpoint=checkpoint,
        )
    return fit(
        loss_of,
        weights,
        count=len(samples),
        batch=config.batch,
        steps=config.prior_steps,
        rate=config.prior_rate,
        seed=seed_of(seed, "prior"),
        checkpoint=checkpoint,
        progress=progress,
    )


def train_mapper(
    mapper: TextMapper,
    embeddings: Tensor,
    seen: Latents,
    config: AlignConfig,
    *,
    seed: int,
    private: Private | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> TrainLog:
    """Fit the text mapper to what the prior sees, one row per sample.

    Under DP what the prior sees of a sample must depend on that sample alone: the prior
    is public or was itself trained with DP.
    """

    def loss_of(_: int, rows: Tensor, __: torch.Generator) -> Tensor:
        return align_loss(
            mapper,
            embeddings[rows].to(device),
            seen.anatomy[rows].to(device),
            seen.style[rows].to(device),
            config.decoder,
        )

    device = device_of(mapper)
    mapper.train()
    weights = dict(mapper.named_parameters())
    if private is not None:
        return fit_private(
            loss_of,
            mapper,
            weights,
            private=private,
            rate=config.mapper_rate,
            checkpoint=checkpoint,
        )
    return fit(
        loss_of,
        weights,
        count=len(embeddings),
        batch=config.batch,
        steps=config.mapper_steps,
        rate=config.mapper_rate,
        seed=seed_of(seed, "mapper"),
        checkpoint=checkpoint,
        progress=progress,
    )
