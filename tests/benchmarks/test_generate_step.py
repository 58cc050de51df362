"""What a step of the generate stage costs, as ratios measured side by side."""

import time
from statistics import median

import pytest
import torch

from vgmedgen.config.run import ModelConfig
from vgmedgen.exchange.schema import ExchangeSchema
from vgmedgen.models import lora
from vgmedgen.models.codec import Codec
from vgmedgen.models.generator import Generator
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.training.autoencoder import build_vae

pytestmark = pytest.mark.slow

BATCH = 16
ROUNDS = 9


@pytest.fixture(scope="module")
def generator() -> Generator:
    made = Generator.build(ModelConfig(), 0)
    lora.attach(made, 8, 8, ("to_q", "to_k", "to_v", "to_out.0"), 0)
    return made


def seconds(work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def compare(first, second) -> float:
    """Median of first / second, timed in turn so that a slow moment hits both."""
    first(), second()
    return median(seconds(first) / seconds(second) for _ in range(ROUNDS))


def test_caching_latents_saves_the_encoder_in_every_step(generator: Generator):
    codec = Codec(build_vae(ModelConfig(), 0))
    draw = torch.Generator().manual_seed(0)
    pixels = torch.rand(BATCH, 3, 64, 64, generator=draw) * 2 - 1
    cached = codec.encode(pixels)
    timesteps = torch.randint(1000, (BATCH,), generator=draw)
    vectors = torch.randn(2, BATCH, 64, generator=draw)

    def step(latents: torch.Tensor) -> None:
        predicted = generator.predict(latents, timesteps, *vectors)
        predicted.square().mean().backward()

    ratio = compare(lambda: step(codec.encode(pixels)), lambda: step(cached))
    print(f"\nstep that encodes / step on cached latents: {ratio:.2f}")
    assert ratio > 1.2


def test_nearly_all_of_a_step_is_spent_inside_the_transformer(generator: Generator):
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(BATCH, 4, 16, 16, generator=draw)
    timesteps = torch.randint(1000, (BATCH,), generator=draw)
    vectors = torch.randn(2, BATCH, 64, generator=draw)
    tokens = generator.tokens(*vectors).detach()
    weights = list(lora.parameters(generator).values())
    optimizer = torch.optim.AdamW(weights, lr=1e-4)

    def inside() -> None:
        generator.denoise(latents, timesteps, tokens).square().mean().backward()

    def whole() -> None:
        predicted = generator.predict(latents, timesteps, *vectors)
        optimizer.zero_grad()
        predicted.square().mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()

    share = compare(inside, whole)
    print(f"\nshare of a step inside the transformer: {share:.2f}")
    assert share > 0.7


def test_a_round_of_pixart_512_sends_less_than_ten_megabytes():
    model = ModelConfig(
        preset="pixart-512",
        image_px=512,
        vae_channels=(128, 256, 512, 512),
        dit_layers=28,
        dit_heads=16,
        dit_head_width=72,
        caption_width=4096,
        tokens_per_channel=4,
    )
    generator = Generator.build(model, 0)
    lora.attach(generator, 8, 8, ("to_q", "to_k", "to_v", "to_out.0"), 0)
    states = {
        "mapper": TextMapper.of(model, 768, 0).shared_state(),
        "lora": lora.state(generator),
    }
    schema = ExchangeSchema.of(states)
    megabytes = {group: 2 * schema.size(group) / 1e6 for group in states}
    print(f"\nfloat16 on the wire, one way: {megabytes}")
    assert megabytes["lora"] < 10
    assert megabytes["mapper"] < 10
