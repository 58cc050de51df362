"""Held-out loss and caption gap: fixed draws, and a gap only where captions steer."""

import pytest
import torch

from vgmedgen.config.run import ModelConfig
from vgmedgen.evaluation.denoising import caption_gap, derangement, heldout_losses
from vgmedgen.models.generator import Generator
from vgmedgen.models.objective import Schedule
from vgmedgen.training.align import Latents

MODEL = ModelConfig(
    image_px=32,
    anatomy=8,
    style=8,
    hffm_hidden=16,
    tokens_per_channel=1,
    caption_width=16,
    dit_layers=1,
    dit_heads=2,
    dit_head_width=8,
)
SCHEDULE = Schedule(torch.linspace(0.999, 0.01, 100).double())


@pytest.fixture
def generator() -> Generator:
    return Generator.build(MODEL, 0)


@pytest.fixture
def heldout() -> tuple[torch.Tensor, Latents]:
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(10, 4, 8, 8, generator=draw)
    vectors = torch.randn(2, 10, 8, generator=draw)
    return latents, Latents(vectors[0], vectors[1])


def test_two_evaluations_agree_and_another_seed_does_not(generator, heldout):
    latents, told = heldout
    with torch.no_grad():  # else the last layer is zero and every draw costs the same
        generator.transformer.proj_out.weight.normal_(std=0.1)
    found = [
        heldout_losses(generator, SCHEDULE, latents, told, draws=4, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert found[0].shape == (10,)


def test_a_model_that_predicts_nothing_loses_the_noise_itself(generator, heldout):
    latents, told = heldout
    losses = heldout_losses(generator, SCHEDULE, latents, told, draws=8, seed=0)
    assert losses.mean().item() == pytest.approx(1, abs=0.05)


def test_the_gap_is_zero_where_the_condition_is_ignored(generator, heldout):
    latents, told = heldout
    gap = caption_gap(generator, SCHEDULE, latents, told, draws=2, shuffles=3, seed=0)
    assert gap.mean == 0
    assert gap.spread == 0


def test_the_gap_is_positive_where_the_condition_tells_the_image():
    """A generator that reads the image's own sign from the anatomy vector."""

    class Knowing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle = torch.nn.Parameter(torch.zeros(1))

        def predict(self, noisy, timesteps, anatomy, style):
            signal, spread = SCHEDULE.shares(timesteps, noisy)
            image = anatomy[:, :1, None, None].expand_as(noisy)
            return (noisy - signal * image) / spread

    values = torch.linspace(-1, 1, 8)
    latents = values.view(-1, 1, 1, 1).expand(8, 4, 4, 4).contiguous()
    told = Latents(values[:, None], values[:, None])
    gap = caption_gap(Knowing(), SCHEDULE, latents, told, draws=4, shuffles=3, seed=0)
    assert gap.mean > 3 * gap.spread > 0


@pytest.mark.parametrize("count", [2, 3, 17])
def test_a_shuffle_leaves_no_caption_at_its_image(count):
    order = derangement(count, 0, 1)
    assert sorted(order.tolist()) == list(range(count))
    assert not (order == torch.arange(count)).any()
