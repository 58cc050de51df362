"""Draw latents: a diffusers solver, guidance, and one source of noise per image."""

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature

import torch
from diffusers import DPMSolverMultistepScheduler, SchedulerMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from torch import Tensor

from vgmedgen.models.generator import Generator
from vgmedgen.models.hffm import null_condition
from vgmedgen.models.objective import Schedule

UNSUPPORTED = {
    "EDMEulerScheduler": "it scales what goes into the model as EDM was trained",
    "DPMSolverSDEScheduler": "its noise comes from one generator for all images, so that "
    "an image would depend on those beside it",
}
# step from 0, timestep and latents after it; the latents to go on with, or None to stop
AfterStep = Callable[[int, Tensor, Tensor], Tensor | None]


def solver(scheduler: SchedulerMixin) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ on the noise schedule of any diffusers scheduler.

    Source: Lu et al. 2022, arXiv 2211.01095; evenly spaced steps from the noisiest, as
    PixArt ships it.
    """
    config = dict(scheduler.config)
    # a default left as it was is dropped by `from_config`, for the next class's default
    config.pop("_use_default_values", None)
    return DPMSolverMultistepScheduler.from_config(config, timestep_spacing="linspace")


@torch.no_grad()
def sample(
    generator: Generator,
    scheduler: SchedulerMixin,
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
        scheduler: gives the solver and its configuration; any that diffusers calls
            compatible with the one of training, but those in `UNSUPPORTED`.
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
        ValueError: if there is not one seed per image, `latents` have another shape, or
            the scheduler is none of those.
    """
    check_solver(scheduler)
    if not len(seeds) == len(anatomy) == len(style):
        raise ValueError(
            f"{len(seeds)} seeds for {len(anatomy)} anatomy vectors and {len(style)} "
            "style vectors"
        )
    with _quiet():
        scheduler = type(scheduler).from_config(scheduler.config)
        scheduler.set_timesteps(steps)
    takes = signature(scheduler.step).parameters
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    chance = {"generator": draws} if "generator" in takes else {}
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
        rows = scheduler.scale_model_input(rows, timestep)
        predicted = generator.denoise(rows, when, tokens)
        if guided:
            told, untold = predicted.chunk(2)
            predicted = torch.lerp(untold, told, guidance)
        current = scheduler.step(
            predicted, timestep, current, **chance, return_dict=False
        )[0]
        if after_step is not None:
            replaced = after_step(number, timestep, current)
            if replaced is None:
                break
            current = _checked(replaced, noise.shape).to(current)
    return torch.as_tensor(current)


def check_solver(scheduler: SchedulerMixin, trained: Schedule | None = None) -> None:
    """Refuse a scheduler that would draw something else than what was trained.

    Args:
        scheduler: to draw with.
        trained: schedule that the model was trained with, to compare with, if known.

    Raises:
        ValueError: naming the scheduler, and what can be used.
    """
    known = {kind.name for kind in KarrasDiffusionSchedulers}
    name = type(scheduler).__name__
    if name in UNSUPPORTED or name not in known:
        why = UNSUPPORTED.get(name, "it is made for models that were trained otherwise")
        usable = ", ".join(sorted(known - UNSUPPORTED.keys()))
        raise ValueError(f"{name} cannot draw with this model: {why}; use {usable}")
    if trained is None:
        return
    given = Schedule.of(scheduler)
    if given.predicts != trained.predicts or not torch.allclose(
        given.alphas_cumprod, trained.alphas_cumprod, rtol=1e-5
    ):
        raise ValueError(
            f"{name} has another noise schedule than this model was trained with; make "
            f"it with {name}.from_config(pipeline.scheduler.config)"
        )


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
