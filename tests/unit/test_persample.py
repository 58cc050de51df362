"""Gradients per unit are exact through whole models, and stay apart."""

import pytest
import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from tests.builders import MICRO
from tests.gradients import (
    adapted,
    alone,
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
from vgmedgen.models.text.mapper import align_loss
from vgmedgen.privacy.persample import PerUnit
from vgmedgen.training.align import prior_loss


def test_a_layer_that_is_used_more_than_once_sums_its_uses():
    layer, other = shaken(nn.Linear(5, 5)), shaken(nn.Linear(5, 5))
    model = nn.Sequential(layer, nn.GELU(), layer, other, layer)
    weights = trained(model)
    loss = loss_of(model, (3, 5), 8)
    assert_close(apart(model, weights, loss, 4, 2), alone(weights, loss, 4, 2))


def test_two_layers_that_share_a_weight_sum_their_uses():
    first, second = shaken(nn.Linear(5, 5)), shaken(nn.Linear(5, 5))
    second.weight = first.weight
    model = nn.Sequential(first, nn.GELU(), second)
    weights = trained(model)
    loss = loss_of(model, (3, 5), 4)
    assert len(weights) == 3
    assert_close(apart(model, weights, loss, 4), alone(weights, loss, 4))


def test_several_passes_add_up_until_the_gradients_are_taken():
    model = shaken(nn.Linear(5, 4))
    weights = trained(model)
    losses = [loss_of(model, (shape, 5), 4) for shape in (2, 3)]
    with PerUnit(model, weights) as per_unit:
        per_unit.units = 4
        for loss in losses:
            loss(torch.arange(4)).sum().backward()
        found = {name: weight.grad_sample for name, weight in weights.items()}
        model.weight.grad_sample = None
        losses[0](torch.arange(4)).sum().backward()
        fresh = model.weight.grad_sample
    parts = [alone(weights, loss, 4) for loss in losses]
    assert_close(found, {name: parts[0][name] + parts[1][name] for name in weights})
    assert torch.allclose(fresh, parts[0]["weight"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_lora_on_the_generator_is_exact_with_and_without_checkpointing(
    checkpointed: bool,
):
    generator = adapted(("to_q", "to_k", "to_v", "to_out.0", "ff.net.2", "linear_1"))
    weights, loss = lora.parameters(generator), generator_loss(generator)
    wanted = alone(weights, loss, 4, 2)
    generator.checkpoint_gradients(on=checkpointed)
    assert_close(apart(generator, weights, loss, 4, 2), wanted)


def test_only_one_of_the_two_factors_may_train():
    generator = adapted()
    weights = {}
    for name, weight in lora.parameters(generator).items():
        weight.requires_grad_(requires_grad=name.endswith(".B"))
        if name.endswith(".B"):
            weights[name] = weight
    loss = generator_loss(generator)
    assert_close(apart(generator, weights, loss, 4), alone(weights, loss, 4))


def test_a_whole_hffm_is_exact():
    model = shaken(HFFM(6, 5, 16, 2, 12))
    draw = torch.Generator().manual_seed(0)
    anatomy, style = (
        torch.randn(8, 6, generator=draw),
        torch.randn(8, 5, generator=draw),
    )
    pull = torch.randn(4, 12, generator=draw)

    def loss(rows: Tensor) -> Tensor:
        return (model(anatomy[rows], style[rows]) - pull).square().flatten(1).mean(1)

    weights = trained(model)
    assert any(name.endswith("mark") for name in weights)
    assert_close(apart(model, weights, loss, 4, 2), alone(weights, loss, 4, 2))


def test_the_text_mapper_is_exact():
    mapper, loss = mapper_loss()
    weights = trained(mapper)
    assert_close(apart(mapper, weights, loss, 4, 2), alone(weights, loss, 4, 2))


def test_the_visual_priors_whole_loss_is_exact():
    prior = VisualPrior.of(MICRO, 0).train()
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(6, 3, 32, 32, generator=draw) * 2 - 1
    mask = (torch.rand(6, 1, 32, 32, generator=draw) > 0.6).float()

    def losses() -> Tensor:
        return prior_loss(prior, image, mask, torch.Generator().manual_seed(9))

    weights = trained(prior)
    each = losses().view(3, 2).sum(1)
    found = [
        torch.autograd.grad(one, list(weights.values()), retain_graph=True)
        for one in each
    ]
    stacked = [torch.stack(one) for one in zip(*found, strict=True)]
    wanted = dict(zip(weights, stacked, strict=True))
    got = apart(prior, weights, lambda _: losses(), 3, 2)
    assert_close(got, wanted, 1e-4)  # a long way through convolutions in float32


def test_under_bfloat16_the_gradients_are_float32_and_point_the_same_way():
    generator = adapted()
    weights, loss = lora.parameters(generator), generator_loss(generator)

    def coarse(rows: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return loss(rows)

    found, wanted = apart(generator, weights, coarse, 8), alone(weights, loss, 8)
    first, second = (
        torch.cat([one[name].flatten(1) for name in weights], 1)
        for one in (found, wanted)
    )
    assert first.dtype == torch.float32
    assert torch.cosine_similarity(first, second).min() > 0.999


@pytest.mark.parametrize("value", [3.0, float("nan"), float("inf")])
def test_what_one_unit_brings_does_not_reach_the_others(value: float):
    generator = adapted()
    weights = lora.parameters(generator)
    draw = torch.Generator().manual_seed(5)
    latents = torch.randn(8, *generator.latent_shape, generator=draw)
    vectors = [torch.randn(8, width, generator=draw) for width in (6, 5)]
    timesteps = torch.randint(1000, (8,), generator=draw)

    def loss(_: Tensor) -> Tensor:
        said = generator.predict(latents, timesteps, *vectors)
        return said.square().flatten(1).mean(1)

    before = apart(generator, weights, loss, 4, 2)
    latents[2:4], vectors[0][3] = value, value
    after = apart(generator, weights, loss, 4, 2)
    others = [0, 2, 3]
    for name in weights:
        scale = before[name].abs().max()
        moved = (after[name] - before[name])[others].abs().max()
        assert moved <= 1e-7 * max(1, scale), name
    assert any((after[name] != before[name])[1].any() for name in weights)


def test_what_one_image_holds_does_not_reach_the_other_units_of_the_prior():
    prior = VisualPrior.of(MICRO, 0).train()
    weights = trained(prior)
    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = (image[:, :1] > 0.3).float()

    def loss(_: Tensor) -> Tensor:
        return prior_loss(prior, image, mask, torch.Generator().manual_seed(9))

    before = apart(prior, weights, loss, 4)
    image[1], mask[1] = float("nan"), 0
    after = apart(prior, weights, loss, 4)
    for name in weights:
        scale = before[name].abs().max()
        moved = (after[name] - before[name])[[0, 2, 3]].abs().max()
        assert moved <= 1e-6 * max(1, scale), name


@pytest.mark.parametrize("clip", [0.01, 0.3, 100.0])
@pytest.mark.parametrize("seed", range(4))
def test_neighbouring_datasets_differ_by_at_most_the_clip_norm(seed: int, clip: float):
    mapper, _ = mapper_loss()
    weights = trained(mapper)
    draw = torch.Generator().manual_seed(seed)
    units, each = 5, 3
    size = float(10 ** torch.randint(-1, 3, (1,), generator=draw))
    given = size * torch.randn(units, each, 32, generator=draw)

    def clipped_sum(rows: Tensor) -> Tensor:
        optimizer = DPOptimizer(
            torch.optim.SGD(list(weights.values()), lr=1.0),
            noise_multiplier=0.0,
            max_grad_norm=clip,
            expected_batch_size=units,
        )
        with PerUnit(mapper, weights) as per_unit:
            per_unit.units = len(rows)
            flat = rows.flatten(0, 1)
            losses = align_loss(mapper, flat, flat[:, :6], flat[:, 6:11], 0.5)
            losses.sum().backward()
            optimizer.clip_and_accumulate()
        return torch.cat([w.summed_grad.flatten() for w in weights.values()])

    whole = clipped_sum(given)
    for unit in range(units):
        kept = [k for k in range(units) if k != unit]
        assert (whole - clipped_sum(given[kept])).norm() <= clip * (1 + 1e-4)
