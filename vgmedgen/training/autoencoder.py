"""The small VAE of a base bundle, trained on public images and generic textures."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from vgmedgen.config.run import BaseConfig, ModelConfig
from vgmedgen.data import images
from vgmedgen.data.phantom import textures
from vgmedgen.data.records import Dataset
from vgmedgen.training.loop import Progress, fit, parts, seed_of

log = logging.getLogger(__name__)

KL_WEIGHT = 1e-5  # keeps the latents' scale bounded, as Rombach et al. 2022 do
TEXTURE_SHARE = 0.25  # generic images added, so that the VAE carries over to real ones
WHOLE_SHARE = 0.1  # of the steps that see whole images; before that, quarters of them
COLOUR_JITTER = 0.25  # largest change of a channel's gain and offset


def build_vae(model: ModelConfig, seed: int) -> AutoencoderKL:
    """An AutoencoderKL of the sizes in `model`, initialised by `seed`."""
    count = len(model.vae_channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            block_out_channels=model.vae_channels,
            layers_per_block=model.vae_layers,
            norm_num_groups=8,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * count,
            up_block_types=("UpDecoderBlock2D",) * count,
            sample_size=model.image_px,
            mid_block_add_attention=False,
        )


def train_vae(
    datasets: Sequence[Dataset],
    model: ModelConfig,
    base: BaseConfig,
    seed: int,
    progress: Progress | None = None,
) -> AutoencoderKL:
    """Train the VAE and set its scaling factor to 1 / std of the public latents."""
    pixels = _public(datasets, model.image_px, seed)
    vae = build_vae(model, seed)

    def loss_of(number: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        whole = number >= (1 - WHOLE_SHARE) * base.vae_steps
        part = pixels[rows] if whole else _crop(pixels[rows], generator)
        image = _jitter(images.as_input(part), generator)
        # bfloat16 halves the time on processors with matrix units and costs nothing here
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = vae.encode(image).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        fine = (decoded - image).abs().flatten(1).mean(1)
        coarse = functional.avg_pool2d(decoded - image, 4).abs().flatten(1).mean(1)
        loss: Tensor = fine + coarse + KL_WEIGHT * posterior.kl().float()
        return loss

    weights = dict(vae.named_parameters())
    losses = fit(
        loss_of,
        weights,
        count=len(pixels),
        batch=base.batch,
        steps=base.vae_steps,
        rate=2 * base.learning_rate,
        seed=seed_of(seed, "vae"),
        progress=progress,
    )
    log.info("base: VAE, loss %.4f", losses.tail_mean())
    vae.eval().register_to_config(scaling_factor=_scale(vae, pixels))
    return vae


def _public(datasets: Sequence[Dataset], px: int, seed: int) -> Tensor:
    loaded = [images.load(r, px)[0] for d in datasets for r in d.records]
    draw = np.random.default_rng(seed_of(seed, "textures"))
    count = round(TEXTURE_SHARE * len(loaded))
    drawn = np.stack([textures(draw, px) for _ in range(max(count, 1))])
    return torch.cat([torch.stack(loaded), torch.from_numpy(drawn).permute(0, 3, 1, 2)])


def _crop(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Squares of half the side, one place for the batch: a quarter of the work."""
    side = pixels.shape[-1] // 2
    top, left = torch.randint(side + 1, (2,), generator=generator).tolist()
    return pixels[..., top : top + side, left : left + side]


def _jitter(image: Tensor, generator: torch.Generator) -> Tensor:
    shape = (2, len(image), 3, 1, 1)
    spread: Tensor = COLOUR_JITTER * (2 * torch.rand(shape, generator=generator) - 1)
    gain, offset = spread.unbind()
    return torch.clamp(image * (1 + gain) + offset, -1, 1)


@torch.no_grad()
def _scale(vae: AutoencoderKL, pixels: Tensor) -> float:
    """One over the standard deviation of up to 512 public latents."""
    chosen = torch.linspace(0, len(pixels) - 1, min(len(pixels), 512)).long()
    latents = [
        vae.encode(images.as_input(pixels[chosen[rows]])).latent_dist.mode()
        for rows in parts(len(chosen), 64)
    ]
    return float(1 / torch.cat(latents).std())
