"""Stage `generate`: LoRA on HFFM and DiT, by denoising the site's own images.

The condition of an image is what the global text mapper makes of its caption; a share of
the captions is dropped, so that guidance has an unconditional branch to guide away from.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vgmedgen.config.plan import GenerateConfig
from vgmedgen.models.codec import Codec
from vgmedgen.models.generator import Generator
from vgmedgen.models.objective import (
    Schedule,
    add_noise,
    colour_loss,
    drop_condition,
    loss_weights,
    wanted,
    x0_estimate,
)
from vgmedgen.privacy.engine import Private
from vgmedgen.training.align import Latents
from vgmedgen.training.loop import (
    Checkpoint,
    Progress,
    TrainLog,
    fit,
    fit_private,
    seed_of,
)
from vgmedgen.training.samples import Samples

COLOUR_STEPS = (
    0.25  # share of the schedule with so little noise that x0 is estimated well
)


def draw_timesteps(top: int, count: int, strata: int, draw: torch.Generator) -> Tensor:
    """Timesteps (count,) below `top`; every `strata` of them lie one in each stratum.

    An image's draws are averaged, and spread over the schedule their mean varies less.
    """
    if strata == 1:
        return torch.randint(top, (count,), generator=draw)
    place = torch.arange(count) % strata + torch.rand(count, generator=draw)
    # in float32 the highest draw of the last stratum may round up to `top`
    return (place * (top / strata)).long().clamp_max(top - 1)


def _colours_of(codec: Codec, estimate: Tensor, image: Tensor, quiet: Tensor) -> Tensor:
    """Colour loss (B,) of the rows in `quiet` (B,); 0 for the others.

    A step draws its timesteps from the whole schedule, coloured or not, so that every
    part of it trains however often a step is coloured.
    """
    losses = estimate.new_zeros(len(estimate))
    if quiet.any():
        seen = colour_loss(codec.decode, estimate[quiet], image[quiet])
        losses = losses.index_put((quiet.nonzero().flatten(),), seen)
    return losses


def train_generator(
    generator: Generator,
    weights: Mapping[str, nn.Parameter],
    samples: Samples,
    condition: Latents,
    schedule: Schedule,
    config: GenerateConfig,
    *,
    seed: int,
    codec: Codec | None = None,
    private: Private | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> TrainLog:
    """Fit `weights` of the generator by denoising.

    Args:
        generator: transformer and HFFM.
        weights: what trains: the LoRA factors at a site, everything in a base.
        samples: give latents, and pixels where the colour loss is on.
        condition: vectors of each sample's caption.
        schedule: of the noise.
        config: steps, rate, dropout and the two optional terms.
        seed: of batches, timesteps and noise.
        private: trains with DP; `config.batch`, `config.steps` and `seed` do not count.
        codec: decodes for the colour loss; needed where `colour_every` is above 0.
        checkpoint: to go on from.
        progress: is told the number of steps done; not under DP.
    """
    device = next(iter(weights.values())).device
    strata = private.draws if private else 1

    def loss_of(number: int, rows: Tensor, draw: torch.Generator) -> Tensor:
        latents = samples.latents[rows].to(device)
        coloured = config.colour_every > 0 and number % config.colour_every == 0
        timesteps = draw_timesteps(len(schedule), len(rows), strata, draw).to(device)
        noise = torch.randn(latents.shape, generator=draw).to(device)
        keep = (torch.rand(len(rows), generator=draw) >= config.dropout).to(device)
        anatomy, style = drop_condition(
            condition.anatomy[rows].to(device), condition.style[rows].to(device), keep
        )
        noisy = add_noise(schedule, latents, noise, timesteps)
        predicted = generator.predict(noisy, timesteps, anatomy, style)
        target = wanted(schedule, latents, noise, timesteps)
        loss = (predicted - target).square().flatten(1).mean(1)
        loss = loss * loss_weights(schedule, timesteps, config.min_snr)
        if coloured and codec is not None:
            estimate = x0_estimate(schedule, noisy, predicted, timesteps)
            image = samples.pixels(rows)[0].to(device)
            quiet = timesteps < COLOUR_STEPS * len(schedule)
            loss = loss + config.colour_weight * _colours_of(
                codec, estimate, image, quiet
            )
        return loss

    generator.train()
    if private is not None:
        return fit_private(
            loss_of,
            generator,
            weights,
            private=private,
            rate=config.learning_rate,
            checkpoint=checkpoint,
        )
    return fit(
        loss_of,
        weights,
        count=len(samples),
        batch=config.batch,
        steps=config.steps,
        rate=config.learning_rate,
        seed=seed_of(seed, "generate"),
        checkpoint=checkpoint,
        progress=progress,
    )
