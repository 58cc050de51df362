"""Steps with a colour loss train the whole schedule, and see colours where x0 is known."""

import dataclasses

import pytest
import torch
from torch import nn

from vgmedgen.config.plan import GenerateConfig
from vgmedgen.models.objective import Schedule
from vgmedgen.training.align import Latents
from vgmedgen.training.generate import COLOUR_STEPS, train_generator

SCHEDULE = Schedule(torch.linspace(0.999, 0.01, 100).double())
ROWS = 64
CONFIG = GenerateConfig(
    steps=4, batch=ROWS, learning_rate=1e-3, colour_every=1, colour_weight=1.0
)


class Watched(nn.Module):
    """Predicts a learned constant, and keeps the timesteps that it was asked for."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(4, 1, 1))
        self.timesteps = []

    def predict(self, latents, timesteps, anatomy, style):
        self.timesteps.append(timesteps)
        return self.bias.expand_as(latents)


class Decoder:
    """Decodes by taking three of four channels; keeps how many rows it was given."""

    def __init__(self):
        self.rows = []

    def decode(self, latents):
        self.rows.append(len(latents))
        return latents[:, :3]


@dataclasses.dataclass
class Images:
    latents: torch.Tensor

    def __len__(self):
        return len(self.latents)

    def pixels(self, rows):
        return torch.zeros(len(rows), 3, 4, 4), None


@pytest.fixture
def trained():
    model, decoder = Watched(), Decoder()
    images = Images(
        torch.randn(ROWS, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    )
    vectors = Latents(torch.zeros(ROWS, 8), torch.zeros(ROWS, 8))
    weights = dict(model.named_parameters())
    train_generator(
        model, weights, images, vectors, SCHEDULE, CONFIG, seed=0, codec=decoder
    )
    return model, decoder


def test_where_every_step_is_coloured_the_noisy_steps_train_all_the_same(trained):
    drawn = torch.cat(trained[0].timesteps)
    quarter = COLOUR_STEPS * len(SCHEDULE)
    assert 0.1 < (drawn < quarter).float().mean() < 0.4
    for part in range(4):  # every quarter of the schedule has its share
        inside = (drawn >= part * quarter) & (drawn < (part + 1) * quarter)
        assert inside.float().mean() > 0.15


def test_colours_are_compared_only_in_rows_with_little_noise(trained):
    model, decoder = trained
    quiet = [(t < COLOUR_STEPS * len(SCHEDULE)).sum().item() for t in model.timesteps]
    assert decoder.rows == quiet
