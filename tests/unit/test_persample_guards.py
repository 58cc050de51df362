"""Gradients per unit: what is refused, and that nothing is left behind."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.gradients import (
    adapted,
    apart,
    assert_close,
    generator_loss,
    loss_of,
    shaken,
    trained,
)
from vgmedgen.errors import ConfigError, TrainingError
from vgmedgen.models import lora
from vgmedgen.models.generator import Generator
from vgmedgen.privacy.persample import PerUnit


def test_a_pass_without_gradient_needs_no_units_and_says_the_same():
    generator = adapted()
    loss = generator_loss(generator)
    with torch.no_grad():
        wanted = loss(torch.arange(3))
        with PerUnit(generator, lora.parameters(generator)) as per_unit:
            per_unit.units = 2
            assert torch.equal(loss(torch.arange(3)), wanted)
    assert all(w.grad is None for w in lora.parameters(generator).values())


def test_nothing_is_left_behind_even_after_an_error(tmp_path: Path):
    generator = adapted()
    weights, loss = lora.parameters(generator), generator_loss(generator)
    lora.save_adapter(generator, tmp_path / "before")
    attributes = {name: dict(vars(m)) for name, m in generator.named_modules()}
    per_unit = PerUnit(generator, weights)

    def interrupted() -> None:
        with per_unit:
            per_unit.units = 4
            loss(torch.arange(4)).sum().backward()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {n: dict(vars(m)) for n, m in generator.named_modules()} == attributes
    for weight in weights.values():
        assert not hasattr(weight, "grad_sample")
        assert weight.grad is None
    lora.save_adapter(generator, tmp_path / "after")
    for file in (tmp_path / "before").iterdir():
        assert (tmp_path / "after" / file.name).read_bytes() == file.read_bytes()
    loss(torch.arange(4)).sum().backward()
    assert all(weight.grad is not None for weight in weights.values())
    torch.save(list(weights.values()), tmp_path / "weights")
    lora.merge(generator)
    generator.save(tmp_path / "merged")
    assert (tmp_path / "merged" / "transformer" / "config.json").is_file()
    Generator.load(tmp_path / "merged")


def test_it_can_be_entered_again():
    model = shaken(nn.Linear(5, 4))
    weights = trained(model)
    loss = loss_of(model, (5,), 4)
    assert_close(apart(model, weights, loss, 4), apart(model, weights, loss, 4))
    with (
        PerUnit(model, weights),
        pytest.raises(ConfigError, match=r"was replaced by something else"),
    ):
        PerUnit(model, weights)


class Bare(nn.Module):
    """Trains a vector of its own, but not by adding it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Special(nn.Linear):
    """A Linear that may do anything."""


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (Bare(), "scale trains in a layer of type Bare"),
        (Special(4, 4), "weight trains in a layer of type Special"),
        (nn.Embedding(4, 4), "type Embedding"),
        (nn.Conv1d(4, 4, 1), "type Conv1d"),
        (nn.Conv2d(4, 4, 1, groups=2), "type Conv2d"),
        (nn.Conv2d(4, 4, 3, padding="same"), "type Conv2d"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), "type Conv2d"),
        (nn.ConvTranspose2d(4, 4, 3, groups=2), "type ConvTranspose2d"),
        (nn.MultiheadAttention(4, 2), "type MultiheadAttention"),
        (nn.PReLU(), "type PReLU"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "type Parametri"),
    ],
)
def test_a_layer_without_a_rule_is_refused_by_name(layer: nn.Module, kind: str):
    model = nn.Sequential(nn.Linear(4, 4), layer)
    with pytest.raises(ConfigError, match=kind) as caught:
        PerUnit(model, trained(model))
    assert "\n" not in str(caught.value)
    layer.requires_grad_(requires_grad=False)
    PerUnit(model, trained(model))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(4), nn.InstanceNorm2d(4, track_running_stats=True)]
)
def test_layers_that_mix_samples_are_refused_even_when_frozen(layer, training: bool):
    model = nn.Sequential(nn.Linear(4, 4), layer.requires_grad_(requires_grad=False))
    with pytest.raises(ConfigError, match="mixes the samples of a batch"):
        PerUnit(model.train(training), trained(model))


def test_dropout_is_refused_unless_it_drops_nothing():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1))
    with pytest.raises(ConfigError, match=r"1: Dropout with p 0.1 is random"):
        PerUnit(model, trained(model))
    model[1].p = 0.0
    PerUnit(model, trained(model))


def test_the_weights_must_be_all_that_trains_and_nothing_else():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    weights = trained(model)
    missing = weights.pop("1.bias")
    with pytest.raises(ConfigError, match=r"1.bias trains but is not among the 3"):
        PerUnit(model, weights)
    missing.requires_grad_(requires_grad=False)
    PerUnit(model, weights)
    with pytest.raises(ConfigError, match=r"1.bias is to train .* but is frozen"):
        PerUnit(model, weights | {"1.bias": missing})
    with pytest.raises(ConfigError, match=r"other is to train .* not of this model"):
        PerUnit(model, weights | {"other": nn.Parameter(torch.ones(2))})


def test_rows_that_do_not_divide_among_the_units_stop_the_training():
    model = nn.Linear(4, 4)
    with PerUnit(model, trained(model)) as per_unit:
        with pytest.raises(TrainingError, match="6 rows do not divide among 0 units"):
            model(torch.ones(6, 4))
        per_unit.units = 4
        with pytest.raises(TrainingError, match="6 rows do not divide among 4 units"):
            model(torch.ones(6, 4))


def test_gradients_of_different_batches_are_not_added_up():
    model = nn.Linear(4, 4)
    with PerUnit(model, trained(model)) as per_unit:
        for units in (4, 1):
            per_unit.units = units
            loss = model(torch.ones(4, 4)).sum()
            if units == 4:
                loss.backward()
        with pytest.raises(TrainingError, match="1 units would be added to those of 4"):
            loss.backward()


def test_a_weight_that_is_used_outside_its_layer_stops_the_training():
    model = nn.Linear(4, 4)
    with PerUnit(model, trained(model)) as per_unit:
        per_unit.units = 2
        loss = model(torch.ones(2, 4)).sum() + model.weight.square().sum()
        with pytest.raises(TrainingError, match="uses a weight outside its layer"):
            loss.backward()
