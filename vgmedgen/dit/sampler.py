"""Draw latents: a diffusers solver, guidance, and one source of noise per image."""

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from vgmedgen.dit.hffm import null_condition
from vgmedgen.dit.model import Generator

# step from 0, timestep and latents after it; the latents to go on with, or None to stop
AfterStep = Callable[[int, Tensor, Tensor], Tensor | None]


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
    latents: Tensor | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Latents of the images that the vectors ask for.

    An image is a function of its vectors and its seed; up to rounding, the batch it is
    drawn in does not matter. Between calls of one batch size, a row is the same to the
    last bit whatever the other rows hold. `scheduler` is left as it is.

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
        latents: (B, 4, h, w), noise to start from in place of that of the seeds, which
            then only serve a solver that adds noise on its way.
        after_step: sees every step, may replace the latents and may stop.

    Returns:
        (B, 4, h, w).

    Raises:
        ValueError: if there is not one seed per image, or `latents` have another shape.
    """
    if not len(seeds) == len(anatomy) == len(style):
        raise ValueError(
            f"{len(seeds)} seeds for {len(anatomy)} anatomy vectors and {len(style)} "
            "style vectors"
        )
    with _quiet():
        scheduler = type(scheduler).from_config(scheduler.config)
        scheduler.set_timesteps(steps)
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = generator.latent_shape
    # drawn even where other noise is given, so that the draws go on from the same place
    noise = torch.stack([torch.randn(shape, generator=draw) for draw in draws])
    if latents is not None:
        noise = _checked(latents, noise.shape)
    current = noise.to(anatomy.device) * scheduler.init_noise_sigma
    tokens = generator.tokens(anatomy, style)
    guided = guidance != 1
    if guided:
        null = generator.tokens(null_condition(anatomy[:1]), null_condition(style[:1]))
        tokens = torch.cat([tokens, null.expand_as(tokens)])
    for number, timestep in enumerate(scheduler.timesteps):
        rows = current.repeat(2, 1, 1, 1) if guided else current
        when = timestep.to(rows.device).expand(len(rows))
        predicted = generator.denoise(rows, when, tokens)
        if guided:
            told, untold = predicted.chunk(2)
            predicted = torch.lerp(untold, told, guidance)
        current = scheduler.step(
            predicted, timestep, current, generator=draws, return_dict=False
        )[0]
        if after_step is not None:
            replaced = after_step(number, timestep, current)
            if replaced is None:
                break
            current = _checked(replaced, noise.shape).to(current)
    return torch.as_tensor(current)


def _checked(latents: Tensor, shape: torch.Size) -> Tensor:
    if latents.shape != shape:
        raise ValueError(
            f"latents of shape {tuple(latents.shape)}, not {tuple(shape)}, were given"
        )
    return latents.float()


_filters = threading.Lock()  # warnings' filters are one list for all threads


@contextmanager
def _quiet() -> Iterator[None]:
    """Diffusers lags behind numpy 2, and would say so to whoever draws an image."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
