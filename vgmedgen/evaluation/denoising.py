"""How well a model explains held-out images, and how much their captions steer it.

Both numbers are means over a fixed set of timesteps and noises, the same for every model,
so that two models differ by what they learned and by nothing else.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vgmedgen.models.generator import Generator
from vgmedgen.models.objective import Schedule, denoising_loss
from vgmedgen.training.align import Latents, device_of
from vgmedgen.training.loop import generator_of, parts

BATCH = 128  # noisy latents per forward pass


@dataclass(frozen=True)
class CaptionGap:
    """Rise of the loss when captions are shuffled among the images."""

    loss: float  # with the right captions
    mean: float
    spread: float  # standard deviation over shuffles


@torch.no_grad()
def heldout_losses(
    generator: Generator,
    schedule: Schedule,
    latents: Tensor,
    condition: Latents,
    *,
    draws: int,
    seed: int,
) -> Tensor:
    """Denoising loss per image.

    Args:
        generator: any mode; left in evaluation mode.
        schedule: of the noise.
        latents: (N, 4, h, w).
        condition: one row per image.
        draws: timesteps per image, one in each equal stratum of the schedule.
        seed: of timesteps and noise.

    Returns:
        (N,): mean squared error of the predicted noise.
    """
    generator.eval()
    device = device_of(generator)
    draw = generator_of(seed, "heldout")
    count = len(latents)
    width = len(schedule) / draws
    offset = torch.rand(draws, count, generator=draw)
    place = (torch.arange(draws)[:, None] + offset) * width
    # in float32 the highest draw of the last stratum may round up to the end
    timesteps = place.long().clamp_max(len(schedule) - 1).flatten()
    rows = torch.arange(count).repeat(draws)
    noise = torch.randn(len(rows), *latents.shape[1:], generator=draw)
    found = []
    for part in parts(len(rows), BATCH):
        who = rows[part]
        loss = denoising_loss(
            generator,
            schedule,
            latents[who].to(device),
            timesteps[part].to(device),
            noise[part].to(device),
            condition.anatomy[who].to(device),
            condition.style[who].to(device),
        )
        found.append(loss.cpu())
    return torch.cat(found).view(draws, count).mean(0)


def caption_gap(
    generator: Generator,
    schedule: Schedule,
    latents: Tensor,
    condition: Latents,
    *,
    draws: int,
    shuffles: int,
    seed: int,
) -> CaptionGap:
    """Mean loss with shuffled captions minus the loss; above 0 when text steers."""
    told = {"draws": draws, "seed": seed}
    right = (
        heldout_losses(generator, schedule, latents, condition, **told).mean().item()
    )
    gaps = []
    for number in range(shuffles):
        order = derangement(len(latents), seed, number)
        other = Latents(condition.anatomy[order], condition.style[order])
        wrong = heldout_losses(generator, schedule, latents, other, **told).mean()
        gaps.append(wrong.item() - right)
    spread = torch.tensor(gaps).std().item() if shuffles > 1 else 0.0
    return CaptionGap(right, sum(gaps) / len(gaps), spread)


def derangement(count: int, *seed: object) -> Tensor:
    """A permutation (count,) that leaves nothing in place, if count is above 1."""
    shuffled = torch.randperm(count, generator=generator_of(*seed, "shuffle"))
    order = torch.empty_like(shuffled)
    order[shuffled] = shuffled.roll(1)
    return order
