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

from vgmedgen.config.run import PREDICTS
from vgmedgen.errors import BaseError
from vgmedgen.models.generator import Generator
from vgmedgen.models.hffm import null_condition

VARIANCE_FLOOR = 1e-6  # keeps the gradient of a standard deviation finite at 0
NOISE = PREDICTS[0]


@dataclass(frozen=True, eq=False)
class Schedule:
    """How much of the image is left after each step, and what a generator predicts.

    Attributes:
        alphas_cumprod: (T,) double, falling, in (0, 1).
        predicts: one of `PREDICTS`.
    """

    alphas_cumprod: Tensor
    predicts: str = NOISE

    @classmethod
    def of(cls, scheduler: DDPMScheduler) -> "Schedule":
        """The schedule of a diffusers scheduler."""
        kind = scheduler.config.prediction_type
        return cls(scheduler.alphas_cumprod.double(), kind)

    @classmethod
    def load(cls, folder: Path) -> "Schedule":
        """Read the config of any diffusers scheduler that predicts noise or velocity.

        Raises:
            BaseError: if the scheduler predicts something else.
        """
        found = cls.of(DDPMScheduler.from_pretrained(folder))
        if found.predicts not in PREDICTS:
            raise BaseError(
                f"{folder}/scheduler_config.json: prediction_type is '{found.predicts}', "
                f"only {' and '.join(PREDICTS)} are supported; use another base bundle"
            )
        return found

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


def wanted(
    schedule: Schedule, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """What a generator should predict (B, 4, h, w): the noise, or the velocity.

    Source: Salimans and Ho 2022, arXiv 2202.00512, appendix D: v = alpha noise - sigma x.
    """
    if schedule.predicts == NOISE:
        return noise
    signal, spread = schedule.shares(timesteps, latents)
    return signal * noise - spread * latents


def x0_estimate(
    schedule: Schedule, noisy: Tensor, predicted: Tensor, timesteps: Tensor
) -> Tensor:
    """Clean latents (B, 4, h, w) that a prediction implies: undoes `add_noise`.

    From noise they are found by dividing by what is left of the image, near nothing at
    the noisiest steps; from a velocity by no division, so that a small error stays small.
    """
    signal, spread = schedule.shares(timesteps, noisy)
    if schedule.predicts == NOISE:
        return (noisy - spread * predicted) / signal
    return signal * noisy - spread * predicted


def prediction_error(
    generator: Generator,
    schedule: Schedule,
    latents: Tensor,
    timesteps: Tensor,
    noise: Tensor,
    anatomy: Tensor,
    style: Tensor,
) -> Tensor:
    """Mean squared error (B,) of what a generator predicts, noise or velocity.

    Args:
        generator: as the schedule says, predicts the noise or the velocity.
        schedule: of the noise.
        latents: (B, 4, h, w), clean.
        timesteps: (B,) in [0, T).
        noise: (B, 4, h, w), standard normal.
        anatomy: (B, A).
        style: (B, S).
    """
    noisy = add_noise(schedule, latents, noise, timesteps)
    predicted = generator.predict(noisy, timesteps, anatomy, style)
    target = wanted(schedule, latents, noise, timesteps)
    return (predicted - target).square().flatten(1).mean(1)


def denoising_loss(
    generator: Generator,
    schedule: Schedule,
    latents: Tensor,
    timesteps: Tensor,
    *given: Tensor,
) -> Tensor:
    """Mean squared error (B,) of the noise (DDPM, equation 14), whatever is predicted.

    It is what every report tells. The noise that a velocity implies is sigma times the
    noisy latents and alpha times the velocity, so it errs alpha times as far.

    Args are those of `prediction_error`, in the same order.
    """
    error = prediction_error(generator, schedule, latents, timesteps, *given)
    if schedule.predicts == NOISE:
        return error
    signal, _ = schedule.shares(timesteps, latents)
    return error * signal.square().flatten()


def loss_weights(schedule: Schedule, timesteps: Tensor, gamma: float) -> Tensor:
    """Weights (B,) in (0, 1] of the squared error of what is predicted.

    An error of the predicted noise weighs SNR times what it makes of the clean latents'
    error, one of the velocity SNR + 1 times. With a gamma no more than that is left of
    either, which holds back the steps with little noise: a base has to learn shapes first.
    Without one noise is unweighted, and velocity is weighted by alpha: halfway to the
    noise's own loss. The velocity's alone serves captions, but under DP what it learns at
    the noisiest steps drowns the rest (held-out loss stood still); the noise's alone serves
    texture and loses captions.

    Source of gamma: Hang et al. 2023, arXiv 2303.09556, whose form for noise this is. For
    the velocity they leave min(SNR, gamma), next to nothing at the noisiest steps, where
    brightness and colour are settled; as Salimans and Ho do, 1 is left there.
    """
    alpha = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    if schedule.predicts == NOISE:
        weights = gamma * (1 - alpha) / alpha if gamma > 0 else torch.ones_like(alpha)
    else:  # SNR + 1 = 1 / (1 - alpha)
        weights = gamma * (1 - alpha) if gamma > 0 else alpha.sqrt()
    return weights.clamp(max=1.0).float()


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
