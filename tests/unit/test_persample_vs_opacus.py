"""A second opinion: Opacus' hooks find the same gradients wherever they work."""

import pytest
import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import Tensor, nn

from tests.builders import MICRO
from tests.gradients import (
    Loss,
    Weights,
    adapted,
    apart,
    assert_close,
    generator_loss,
    loss_of,
    mapper_loss,
    shaken,
    trained,
)
from vgmedgen.models import lora
from vgmedgen.models.hffm import HFFM
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.training.align import prior_loss

# Opacus: of layers whose input needs no gradient, which is as it should be
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


def hooked(model: nn.Module, weights: Weights, loss: Loss, rows: int) -> dict:
    """Gradients per row from Opacus' hooks on the model as it is."""
    hooks = GradSampleHooks(model, loss_reduction="sum", strict=False)
    try:
        loss(torch.arange(rows)).sum().backward()
        return {name: weight.grad_sample.clone() for name, weight in weights.items()}
    finally:
        hooks.cleanup()
        for weight in weights.values():
            weight.grad = None


def compare(model: nn.Module, weights: Weights, loss: Loss, tolerance=1e-5) -> None:
    wanted = hooked(model, weights, loss, 4)
    assert_close(apart(model, weights, loss, 4), wanted, tolerance)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 4), (5,)),
        (nn.Linear(5, 4), (7, 5)),
        (nn.LayerNorm(6), (4, 6)),
        (nn.GroupNorm(2, 6), (6, 5, 4)),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 7, 6)),
        (nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), (3, 5, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_each_layer_agrees(layer: nn.Module, shape: tuple[int, ...]):
    compare(shaken(layer), trained(layer), loss_of(layer, shape, 4))


def test_lora_on_the_generator_agrees():
    generator = adapted(("to_q", "to_k", "to_v", "to_out.0", "ff.net.2", "linear_1"))
    compare(generator, lora.parameters(generator), generator_loss(generator))


def test_a_whole_hffm_agrees():
    model = shaken(HFFM(6, 5, 16, 2, 12))
    draw = torch.Generator().manual_seed(0)
    anatomy, style = (
        torch.randn(4, 6, generator=draw),
        torch.randn(4, 5, generator=draw),
    )

    def loss(rows: Tensor) -> Tensor:
        return model(anatomy[rows], style[rows]).square().flatten(1).mean(1)

    compare(model, trained(model), loss)


def test_the_text_mapper_agrees():
    mapper, loss = mapper_loss()
    compare(mapper, trained(mapper), loss)


def test_the_visual_prior_agrees():
    prior = VisualPrior.of(MICRO, 0).train()
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(4, 3, 32, 32, generator=draw) * 2 - 1
    mask = (torch.rand(4, 1, 32, 32, generator=draw) > 0.6).float()

    def loss(_: Tensor) -> Tensor:
        return prior_loss(prior, image, mask, torch.Generator().manual_seed(9))

    # decoder and style encoder run twice, and the hooks read the gradients in between
    compare(prior, trained(prior), loss, 1e-4)


def test_units_of_several_rows_are_opacus_rows_summed():
    mapper, loss = mapper_loss()
    weights = trained(mapper)
    rows = hooked(mapper, weights, loss, 8)
    summed = {name: each.unflatten(0, (4, 2)).sum(1) for name, each in rows.items()}
    assert_close(apart(mapper, weights, loss, 4, 2), summed)


def test_where_opacus_is_silent_under_checkpointing_the_gradients_are_here():
    generator = adapted()
    weights, loss = lora.parameters(generator), generator_loss(generator)
    wanted = hooked(generator, weights, loss, 4)
    generator.checkpoint_gradients(on=True)
    assert_close(apart(generator, weights, loss, 4), wanted)
