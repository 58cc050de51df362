"""Every kind of layer: its gradients per unit, and those of its input."""

import pytest
import torch
from torch import Tensor, nn

from tests.gradients import alone, apart, assert_close, loss_of, shaken, trained
from vgmedgen.models.hffm import TypeEmbedding
from vgmedgen.privacy.persample import PerUnit

LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), (5,)),
    "linear over tokens": (lambda: nn.Linear(5, 4), (7, 5)),
    "linear over a grid": (lambda: nn.Linear(5, 4, bias=False), (3, 2, 5)),
    "layer norm": (lambda: nn.LayerNorm(6), (6,)),
    "layer norm over tokens": (lambda: nn.LayerNorm(6), (4, 6)),
    "layer norm over two axes": (lambda: nn.LayerNorm((4, 6), bias=False), (3, 4, 6)),
    "group norm": (lambda: nn.GroupNorm(2, 6), (6, 5, 4)),
    "mark": (lambda: TypeEmbedding(6), (3, 6)),
    "conv": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 6, 5)),
    "conv with stride": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 7, 6)),
    "conv, oblong and dilated": (
        lambda: nn.Conv2d(
            2, 3, (3, 2), stride=(1, 2), dilation=(2, 1), padding=(2, 0), bias=False
        ),
        (2, 8, 7),
    ),
    "conv transposed": (
        lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
        (3, 5, 4),
    ),
    "conv transposed, oblong": (
        lambda: nn.ConvTranspose2d(2, 3, (2, 3), stride=(2, 1), dilation=(1, 2)),
        (2, 4, 3),
    ),
}


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layers_gradients_are_those_of_each_unit_alone(name: str, each: int):
    build, shape = LAYERS[name]
    model = shaken(build())
    weights = trained(model)
    loss = loss_of(model, shape, 4 * each)
    assert_close(apart(model, weights, loss, 4, each), alone(weights, loss, 4, each))


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize("name", ["linear", "layer norm", "group norm", "conv"])
def test_a_layer_may_train_in_part(name: str, frozen: str):
    build, shape = LAYERS[name]
    model = shaken(build())
    getattr(model, frozen).requires_grad_(requires_grad=False)
    weights = trained(model)
    loss = loss_of(model, shape, 4)
    assert len(weights) == 1
    assert_close(apart(model, weights, loss, 4), alone(weights, loss, 4))


def test_the_gradient_of_the_input_is_untouched():
    for build, shape in LAYERS.values():
        model = shaken(build())
        rows = torch.randn(4, *shape, requires_grad=True)

        def ask(model: nn.Module = model, rows: Tensor = rows) -> Tensor:
            return torch.autograd.grad(model(rows).square().sum(), rows)[0]

        wanted = ask()
        with PerUnit(model, trained(model)) as per_unit:
            per_unit.units = 4
            assert torch.allclose(ask(), wanted, rtol=1e-5, atol=1e-6)
