"""Gradients per unit: as `PerUnit` finds them, and as autograd finds each one alone."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from tests.builders import MICRO, awake
from vgmedgen.models import lora
from vgmedgen.models.generator import Generator
from vgmedgen.models.text.mapper import TextMapper, align_loss
from vgmedgen.privacy.persample import PerUnit

Weights = Mapping[str, nn.Parameter]
Loss = Callable[[Tensor], Tensor]
"""Rows (R,) -> loss of each (R,)."""


def shaken(model: nn.Module) -> nn.Module:
    """With every weight random, so that no gradient is zero by chance."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=draw))
    return model


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: w for name, w in model.named_parameters() if w.requires_grad}


def apart(
    model: nn.Module, weights: Weights, loss: Loss, units: int, each: int = 1
) -> dict[str, Tensor]:
    """What `PerUnit` finds for units of `each` rows."""
    with PerUnit(model, weights) as per_unit:
        per_unit.units = units
        loss(torch.arange(units * each)).sum().backward()
        assert all(weight.grad is None for weight in weights.values())
        return {name: weight.grad_sample for name, weight in weights.items()}


def alone(weights: Weights, loss: Loss, units: int, each: int = 1) -> dict[str, Tensor]:
    """What autograd finds for one unit at a time, with no other near it."""
    found = []
    for unit in range(units):
        rows = torch.arange(unit * each, (unit + 1) * each)
        found.append(torch.autograd.grad(loss(rows).sum(), list(weights.values())))
    stacked = [torch.stack(one) for one in zip(*found, strict=True)]
    return dict(zip(weights, stacked, strict=True))


def assert_close(found: Weights, wanted: Weights, tolerance: float = 1e-5) -> None:
    """Each weight's gradient, relative to its own norm and 1/1000 of the unit's."""
    assert found.keys() == wanted.keys()
    whole = sum(w.flatten(1).square().sum(1) for w in wanted.values()).sqrt()
    assert (whole > 0).all()
    for name, gradient in wanted.items():
        assert found[name].shape == gradient.shape, name
        assert found[name].dtype == torch.float32
        error = (found[name] - gradient).flatten(1).norm(dim=1)
        own = gradient.flatten(1).norm(dim=1)
        assert (error <= tolerance * (own + 1e-3 * whole)).all(), name


def loss_of(model: nn.Module, shape: tuple[int, ...], rows: int) -> Loss:
    """A loss that asks something else of every place of every row's output."""
    draw = torch.Generator().manual_seed(1)
    given = torch.randn(rows, *shape, generator=draw)

    def loss(chosen: Tensor) -> Tensor:
        out = model(given[chosen])
        pull = torch.linspace(-1, 2, out[0].numel()).view(out[0].shape)
        return ((out - pull).square() * (1 + pull)).flatten(1).mean(1)

    return loss


def generator_loss(generator: Generator, rows: int = 8) -> Loss:
    draw = torch.Generator().manual_seed(5)
    latents = torch.randn(rows, *generator.latent_shape, generator=draw)
    timesteps = torch.randint(1000, (rows,), generator=draw)
    noise = torch.randn(latents.shape, generator=draw)
    anatomy = torch.randn(rows, MICRO.anatomy, generator=draw)
    style = torch.randn(rows, MICRO.style, generator=draw)

    def loss(chosen: Tensor) -> Tensor:
        said = generator.predict(
            latents[chosen], timesteps[chosen], anatomy[chosen], style[chosen]
        )
        return (said - noise[chosen]).square().flatten(1).mean(1)

    return loss


def adapted(targets: tuple[str, ...] = ("to_q", "to_v", "to_out.0")) -> Generator:
    """A micro generator whose LoRA says something: B is not zero."""
    generator = awake(Generator.build(MICRO, 0))
    lora.attach(generator, 4, 4, targets, 0)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in lora.parameters(generator).values():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=draw))
    return generator.train()


def mapper_loss() -> tuple[TextMapper, Loss]:
    mapper = TextMapper.of(MICRO, 32, 0)
    draw = torch.Generator().manual_seed(0)
    embeddings, anatomy, style = (
        torch.randn(8, width, generator=draw)
        for width in (32, MICRO.anatomy, MICRO.style)
    )

    def loss(rows: Tensor) -> Tensor:
        return align_loss(mapper, embeddings[rows], anatomy[rows], style[rows], 0.5)

    return mapper, loss
