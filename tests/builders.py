"""What tests build more than once."""

import torch

from vgmedgen.config.run import ModelConfig
from vgmedgen.models.generator import Generator

MICRO = ModelConfig(
    image_px=32,
    vae_channels=(8, 8, 8, 8),
    dit_patch=1,
    anatomy=6,
    style=5,
    text_width=32,
    mapper_hidden=16,
    hffm_hidden=16,
    tokens_per_channel=2,
    dit_layers=1,
    dit_heads=2,
    dit_head_width=8,
    caption_width=12,
)
"""Sizes of a generator that a test can afford to build many times."""


def awake(generator: Generator) -> Generator:
    """A generator as if trained: its last layers say something, and to every input."""
    draw = torch.Generator().manual_seed(7)
    transformer = generator.transformer
    silent = [transformer.proj_out.weight, transformer.proj_out.bias]
    silent += [block.attn2.to_out[0].weight for block in transformer.transformer_blocks]
    with torch.no_grad():
        for weight in silent:
            weight.copy_(0.1 * torch.randn(weight.shape, generator=draw))
    return generator
