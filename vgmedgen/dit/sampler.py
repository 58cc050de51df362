"""Draw latents: a diffusers solver, guidance, and one source of noise per image."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from vgmedgen.dit.hffm import null_condition
from vgmedgen.dit.model import Generator


def solver(scheduler: object) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ on the noise schedule of any diffusers scheduler.

    Source: Lu et al. 2022, arXiv 2211.01095; evenly spaced steps from the noisiest, as
    PixArt ships it.
    """
    return DPMSolverMultistepScheduler.from_config(
        getattr(scheduler, "config", scheduler), timestep_spacing="linspace"
    )


@torch.no_grad()
def sample(
    generator: Generator,
    scheduler: DPMSolverMultistepScheduler,
    anatomy: Tensor,
    style: Tensor,
    *,
    steps: int,
    guidance: float,
    seeds: Sequence[int],
) -> Tensor:
    """Latents of the images that the vectors ask for.

    An image is a function of its vectors and its seed; up to rounding, the batch it is
    drawn in does not matter. `scheduler` is left as it is.

    Source of guidance: Ho and Salimans 2022, arXiv 2207.12598.

    Args:
        generator: predicts the noise.
        scheduler: gives the solver's configuration.
        anatomy: (B, A).
        style: (B, S).
        steps: of the solver.
        guidance: 1 follows the captions as trained, in half the time; more exaggerates
            what they say.
        seeds: one per image.

    Returns:
        (B, 4, h, w).

    Raises:
        ValueError: if there is not one seed per image.
    """
    if not len(seeds) == len(anatomy) == len(style):
        raise ValueError(
            f"{len(seeds)} seeds for {len(anatomy)} anatomy vectors and {len(style)} "
            "style vectors"
        )
    scheduler = type(scheduler).from_config(scheduler.config)
    with _quiet():
        scheduler.set_timesteps(steps)
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = generator.latent_shape
    latents = torch.stack([torch.randn(shape, generator=draw) for draw in draws])
    latents = latents.to(anatomy.device) * scheduler.init_noise_sigma
    tokens = generator.tokens(anatomy, style)
    guided = guidance != 1
    if guided:
        null = generator.tokens(null_condition(anatomy[:1]), null_condition(style[:1]))
        tokens = torch.cat([tokens, null.expand_as(tokens)])
    for timestep in scheduler.timesteps:
        rows = latents.repeat(2, 1, 1, 1) if guided else latents
        when = timestep.to(rows.device).expand(len(rows))
        predicted = generator.denoise(rows, when, tokens)
        if guided:
            told, untold = predicted.chunk(2)
            predicted = torch.lerp(untold, told, guidance)
        latents = scheduler.step(
            predicted, timestep, latents, generator=draws, return_dict=False
        )[0]
    return torch.as_tensor(latents)


@contextmanager
def _quiet() -> Iterator[None]:
    """Diffusers lags behind numpy 2, and would say so to whoever draws an image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
