"""A pipeline of random weights and micro size, whole: with a visual prior."""

import torch
from diffusers import AutoencoderKL, DDPMScheduler

from tests.builders import MICRO, awake
from vgmedgen.models.generator import Generator
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.models.text.encoder import build_tiny
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.models.text.vocabulary import build_tokenizer
from vgmedgen.synthesis.pipeline import VGMedGenPipeline

PROMPTS = [
    "a dermoscopic image of a large brown lesion",
    "a small red polyp",
    "a dark mass in the upper left of the breast, irregular, not circumscribed",
]


def micro_pipeline() -> VGMedGenPipeline:
    """The same one at every call; silent about its progress."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
        )
        prior = VisualPrior(
            channels=(8, 8, 16), anatomy=MICRO.anatomy, style=MICRO.style, grid=4
        )
    generator = awake(Generator.build(MICRO, seed=1))
    tokenizer = build_tokenizer(sorted(set(" ".join(PROMPTS).split())), 32)
    pipeline = VGMedGenPipeline(
        transformer=generator.transformer,
        hffm=generator.hffm,
        text_mapper=TextMapper.of(MICRO, MICRO.text_width, 2),
        text_encoder=build_tiny(MICRO.text_width, 1, tokenizer, 3),
        tokenizer=tokenizer,
        vae=vae,
        scheduler=DDPMScheduler(beta_schedule="linear", clip_sample=False),
        visual_prior=prior,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
