"""Inversion: what an attacker gets back of an image from the update that it caused.

The setting is the attacker's best: one unit in the step, its gradient seen itself rather
than what an optimiser makes of it, and start weights, caption, timestep and noise known.
He looks for latents whose gradient points where the seen one does. Source: Geiping et al.
2020, arXiv 2003.14053 (cosine distance, Adam), applied to LoRA factors.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from vgmedgen.audit.models import Model
from vgmedgen.models import lora
from vgmedgen.models.codec import Codec
from vgmedgen.models.objective import Schedule, loss_weights, prediction_error
from vgmedgen.privacy.randomness import Secret
from vgmedgen.training.align import Latents, device_of
from vgmedgen.training.loop import generator_of, rate_factor

NOISED = 0.4  # share of the schedule: where gradients tell most of the image
RATE = 0.1  # of Adam, in standard deviations of latents
CLEAR = 0.7  # correlation from which a person sees the same picture


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """One image, and what was found of it."""

    original: Tensor  # (3, H, W) in [-1, 1], as the VAE shows it
    open: Tensor  # from the bare gradient
    guarded: Tensor | None  # from what the plan's clip and noise leave of it
    open_match: float  # correlation of latents, 1 the same, 0 chance
    guarded_match: float | None
    open_psnr: float  # dB between the pictures
    guarded_psnr: float | None


@dataclass(frozen=True)
class Scene:
    """All that the attacker knows besides the gradient: one image's step."""

    model: Model  # with LoRA attached
    schedule: Schedule
    condition: Latents  # one row
    timestep: Tensor  # (1,)
    noise: Tensor  # (1, 4, h, w)

    def gradient(self, latents: Tensor, *, through: bool = False) -> Tensor:
        """Flat gradient of all LoRA factors for latents (1, 4, h, w)."""
        weights = list(lora.parameters(self.model.generator).values())
        # the fused kernels of attention have no second derivative
        with sdpa_kernel(SDPBackend.MATH):
            error = prediction_error(
                self.model.generator,
                self.schedule,
                latents,
                self.timestep,
                self.noise,
                self.condition.anatomy,
                self.condition.style,
            )
            loss = error * loss_weights(self.schedule, self.timestep, 0)
            found = torch.autograd.grad(loss.sum(), weights, create_graph=through)
        return torch.cat([part.flatten() for part in found])


def guard(gradient: Tensor, clip: float, noise: float) -> Tensor:
    """The sum that a private step makes of one unit's gradient (d,)."""
    factor = clip / max(clip, gradient.norm().item())
    drawn = Secret().normal(tuple(gradient.shape), noise * clip)
    return gradient.mul(factor) + drawn.to(gradient.device)


def invert(scene: Scene, seen: Tensor, steps: int) -> Tensor:
    """Latents (1, 4, h, w) whose gradient is most like the `seen` one (d,)."""
    guess = torch.zeros_like(scene.noise).requires_grad_()
    optimizer = torch.optim.Adam([guess], lr=RATE)
    for number in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate_factor(number, steps)
        own = scene.gradient(guess, through=True)
        distance = 1 - functional.cosine_similarity(own, seen, dim=0)
        (guess.grad,) = torch.autograd.grad(distance, guess)
        optimizer.step()
    return guess.detach()


def match(found: Tensor, truth: Tensor) -> float:
    """Correlation of two latents; 0 where one of them is constant."""
    pair = torch.stack([found.flatten(), truth.flatten()])
    return torch.corrcoef(pair)[0, 1].nan_to_num().item()


def psnr(found: Tensor, truth: Tensor) -> float:
    """Peak signal to noise in dB of images in [-1, 1]."""
    error = (found.clamp(-1, 1) - truth.clamp(-1, 1)).square().mean().item()
    return 10 * math.log10(4 / max(error, 1e-10))


def attack(
    model: Model,
    schedule: Schedule,
    codec: Codec,
    latents: Tensor,
    condition: Latents,
    *,
    guarded: tuple[float, float] | None,
    steps: int = 250,
    seed: int = 0,
) -> list[Recovered]:
    """Try to get every image back, without DP and with the plan's.

    Args:
        model: start of the round, LoRA attached; left in evaluation mode.
        schedule: of the noise.
        codec: decodes what was found.
        latents: (N, 4, h, w), one image of each of N units.
        condition: one row per image.
        guarded: clip norm and noise multiplier of the plan; None without DP.
        steps: of the search.
        seed: of timestep and noise, which the attacker knows.
    """
    model.generator.eval()
    found = []
    for row in range(len(latents)):
        truth = latents[row : row + 1].to(device_of(model.generator))
        scene = _scene(model, schedule, condition, row, truth, seed)
        seen = scene.gradient(truth).detach()
        leaks = [seen] if guarded is None else [seen, guard(seen, *guarded)]
        images = [truth, *(invert(scene, leak, steps) for leak in leaks)]
        with torch.no_grad():
            shown = [codec.decode(image)[0].cpu() for image in images]
        matches = [match(image, truth) for image in images]
        peaks = [psnr(image, shown[0]) for image in shown]
        with_dp = guarded is not None
        found.append(
            Recovered(
                original=shown[0],
                open=shown[1],
                guarded=shown[2] if with_dp else None,
                open_match=matches[1],
                guarded_match=matches[2] if with_dp else None,
                open_psnr=peaks[1],
                guarded_psnr=peaks[2] if with_dp else None,
            )
        )
    return found


def _scene(
    model: Model,
    schedule: Schedule,
    condition: Latents,
    row: int,
    like: Tensor,
    seed: int,
) -> Scene:
    draw = generator_of(seed, "inversion", row)
    return Scene(
        model,
        schedule,
        Latents(
            condition.anatomy[row : row + 1].to(like.device),
            condition.style[row : row + 1].to(like.device),
        ),
        torch.full((1,), round(NOISED * len(schedule)), device=like.device),
        torch.randn(like.shape, generator=draw).to(like.device),
    )
