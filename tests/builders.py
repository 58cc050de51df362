"""What tests build more than once."""

import torch

from vgmedgen.dit.model import Generator


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
