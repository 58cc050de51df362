"""What the generator learns by: the denoising loss and its optional companions.

All functions are pure. B batch, T steps of the schedule. Source of the notation: Ho et
al. 2020, arXiv 2006.11239; `alphas_cumprod` is its alpha bar.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from vgmedgen.dit.hffm import null_condition
from vgmedgen.dit.model import Generator
from vgmedgen.errors import BaseError

VARIANCE_FLOOR = 1e-6  # keeps the gradient of a standard deviation finite at 0


@dataclass(frozen=True, eq=False)
class Schedule:
    """How much of the image is left after each step.

    Attributes:
        alphas_cumprod: (T,) double, falling, in (0, 1).
    """

    alphas_cumprod: Tensor

    @classmethod
    def of(cls, scheduler: DDPMScheduler) -> "Schedule":
        """The schedule of a diffusers scheduler."""
        return cls(scheduler.alphas_cumprod.double())

    @classmethod
    def load(cls, folder: Path) -> "Schedule":
        """Read the config of any diffusers scheduler that predicts noise.

        Raises:
            BaseError: if the scheduler predicts something other than noise.
        """
        scheduler = DDPMScheduler.from_pretrained(folder)
        kind = scheduler.config.prediction_type
        if kind != "epsilon":
            raise BaseError(
                f"{folder}/scheduler_config.json: prediction_type is '{kind}', only "
                "'epsilon' is supported; use another base bundle"
            )
        return cls.of(scheduler)

    def __len__(self) -> int:
        """T."""
        return len(self.alphas_cumprod)

    def shares(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Factors (B, 1, 1, 1) of clean latents and of noise, of the type of `like`."""
        alpha = self.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
        return alpha.sqrt().to(like), (1 - alpha).sqrt().to(like)


def add_noise(
    schedule: Schedule, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """Latents (B, 4, h, w) after `timesteps` (B,) of noising (DDPM, equation 4)."""
    signal, spread = schedule.shares(timesteps, latents)
    return signal * latents + spread * noise


def x0_estimate(
    schedule: Schedule, noisy: Tensor, predicted: Tensor, timesteps: Tensor
) -> Tensor:
    """Clean latents (B, 4, h, w) that `predicted` noise implies: undoes `add_noise`."""
    signal, spread = schedule.shares(timesteps, noisy)
    return (noisy - spread * predicted) / signal


def denoising_loss(
    generator: Generator,
    schedule: Schedule,
    latents: Tensor,
    timesteps: Tensor,
    noise: Tensor,
    anatomy: Tensor,
    style: Tensor,
) -> Tensor:
    """Mean squared error (B,) of the predicted noise (DDPM, equation 14).

    Args:
        generator: predicts the noise.
        schedule: of the noise.
        latents: (B, 4, h, w), clean.
        timesteps: (B,) in [0, T).
        noise: (B, 4, h, w), standard normal.
        anatomy: (B, A).
        style: (B, S).
    """
    noisy = add_noise(schedule, latents, noise, timesteps)
    predicted = generator.noise_prediction(noisy, timesteps, anatomy, style)
    return (predicted - noise).square().flatten(1).mean(1)


def min_snr_weights(schedule: Schedule, timesteps: Tensor, gamma: float) -> Tensor:
    """Weights (B,) in (0, 1] that hold back steps with little noise.

    Source: Hang et al. 2023, arXiv 2303.09556: min(SNR, gamma) / SNR, which is the
    form for predicted noise.
    """
    alpha = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    return (gamma * (1 - alpha) / alpha).clamp(max=1.0).float()


def drop_condition(
    anatomy: Tensor, style: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """Replace both vectors by the null condition wherever `keep` (B,) is false.

    Source: Ho and Salimans 2022, arXiv 2207.12598, algorithm 1.
    """
    kept = keep.view(-1, 1)
    return (
        torch.where(kept, anatomy, null_condition(anatomy)),
        torch.where(kept, style, null_condition(style)),
    )


def colour_loss(
    decode: Callable[[Tensor], Tensor], x0_latents: Tensor, image: Tensor
) -> Tensor:
    """How far an estimate's colours are from the image's; differentiable throughout.

    Source: Med-Art, arXiv 2506.20449: squared differences of each channel's mean and
    standard deviation, here averaged over the channels.

    Args:
        decode: latents (B, 4, h, w) to images (B, 3, H, W) in [-1, 1], with gradient.
        x0_latents: (B, 4, h, w), from `x0_estimate` at little noise.
        image: (B, 3, H, W) in [-1, 1], real.

    Returns:
        (B,).
    """
    mean, deviation = _colours(decode(x0_latents))
    real_mean, real_deviation = _colours(image)
    gap = (mean - real_mean).square() + (deviation - real_deviation).square()
    return gap.mean(1)


def _colours(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, 3) of each channel."""
    variance, mean = torch.var_mean(image.flatten(2), dim=2, correction=0)
    return mean, (variance + VARIANCE_FLOOR).sqrt()
