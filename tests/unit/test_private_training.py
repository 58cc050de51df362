"""DP-SGD as the loop does it: bounded, noised, never twice the same, and honest."""

import copy
import logging
import math

import pytest
import torch
from torch import Tensor, nn

from vgmedgen.errors import ConfigError, TrainingError
from vgmedgen.privacy import engine
from vgmedgen.privacy.accountant import Mechanism
from vgmedgen.privacy.engine import Private, PrivateOptimizer
from vgmedgen.privacy.persample import PerUnit
from vgmedgen.training.loop import Checkpoint, adamw, fit_private, rate_factor

QUIET = 1e-9  # a noise multiplier that leaves the gradient readable


def model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 2))


X = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))
UNITS = ((0, 1, 2), (3,), (4, 5), (6,), (7,), (8, 9, 10), (11,))


def loss_with(net: nn.Module, x: Tensor = X):
    def loss_of(_: int, rows: Tensor, __: torch.Generator) -> Tensor:
        return net(x[rows]).square().sum(1)

    return loss_of


def private(**changes) -> Private:
    told = {
        "units": UNITS,
        "mechanism": Mechanism(noise=QUIET, rate=1.0, steps=3),
        "clip": 1e3,
        "images": 3,
    }
    return Private(**{**told, **changes})


def train(net: nn.Module, asked: Private, x: Tensor = X, **options):
    return fit_private(
        loss_with(net, x),
        net,
        dict(net.named_parameters()),
        private=asked,
        rate=0.1,
        **options,
    )


def flat(net: nn.Module) -> Tensor:
    return torch.cat([w.detach().flatten() for w in net.parameters()])


def one_sum(net: nn.Module, asked: Private, x: Tensor = X) -> Tensor:
    """The noised sum that one step releases, all weights in a row."""
    weights = dict(net.named_parameters())
    optimizer = PrivateOptimizer(torch.optim.SGD(weights.values(), lr=1.0), asked)
    before = flat(net).clone()
    with PerUnit(net, weights) as per_unit:
        engine.step(loss_with(net, x), 0, per_unit, optimizer, asked)
    return (before - flat(net)) * asked.expected


def test_without_noise_or_clip_a_step_is_plain_training_on_the_mean_over_units():
    net, plain = model(), model()
    train(net, private(images=6))
    optimizer = adamw(list(plain.parameters()), 0.1)
    for number in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * rate_factor(number, 3)
        losses = plain(X).square().sum(1)
        by_unit = [losses[list(unit)].mean() for unit in UNITS]
        optimizer.zero_grad()
        torch.stack(by_unit).mean().backward()
        optimizer.step()
    assert torch.allclose(flat(net), flat(plain), atol=1e-3)


def test_each_units_gradient_is_clipped_over_everything_before_the_sum():
    net, wanted = model(), torch.zeros(len(flat(model())))
    for unit in UNITS:
        alone = model()
        alone(X[list(unit)]).square().sum(1).mean().backward()
        gradient = torch.cat([w.grad.flatten() for w in alone.parameters()])
        wanted += gradient * min(1.0, 0.5 / gradient.norm().item())
    found = one_sum(net, private(images=6, clip=0.5))
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("gone", range(len(UNITS)))
@pytest.mark.parametrize("clip", [0.01, 0.5, 100.0])
def test_a_units_record_moves_the_sum_by_at_most_the_clip_norm(gone, clip):
    """Zeroed out, or replaced by something enormous: units of several images too."""
    huge = X.clone()
    huge[list(UNITS[gone])] *= 1e3
    rest = tuple(unit for k, unit in enumerate(UNITS) if k != gone)
    asked = private(clip=clip, images=6)
    without = one_sum(model(), private(clip=clip, images=6, units=rest))
    for x in (X, huge):
        moved = (one_sum(model(), asked, x) - without).norm().item()
        assert moved <= clip * (1 + 1e-4) + 1e-5


def test_micro_batches_change_nothing(monkeypatch):
    found = []
    for rows in (1, 6, 64):
        monkeypatch.setattr(engine, "ROWS", rows)
        found.append(one_sum(model(), private(clip=0.5, images=6)))
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert torch.allclose(found[0], found[2], atol=1e-5)


def test_an_empty_batch_is_a_step_of_noise_alone():
    asked = private(
        mechanism=Mechanism(noise=2.0, rate=1e-9, steps=1), clip=0.5, images=1
    )
    drawn = torch.cat([one_sum(model(), asked) for _ in range(160)])
    assert drawn.std().item() == pytest.approx(1.0, rel=0.05)
    assert abs(drawn.mean().item()) < 0.1


def test_the_same_seed_gives_other_noise_and_no_seed_is_told(caplog):
    asked = {"mechanism": Mechanism(noise=1.0, rate=0.5, steps=2), "clip": 0.1}
    found = []
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            net = model()
            torch.manual_seed(0)
            train(net, private(**asked))
            found.append(flat(net))
    assert not torch.allclose(found[0], found[1])
    assert "seed" not in caplog.text.lower()
    assert "secret" not in repr(private(**asked)).lower()


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    train(model(), private(mechanism=Mechanism(noise=1.0, rate=0.5, steps=2)))
    net = model()  # seeds it
    del net
    torch.set_rng_state(state)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_unit_whose_gradient_is_not_finite_counts_as_zero():
    broken = X.clone()
    broken[3] = math.inf
    rest = tuple(unit for unit in UNITS if unit != (3,))
    found = one_sum(model(), private(clip=0.5, images=6), broken)
    wanted = one_sum(model(), private(clip=0.5, images=6, units=rest))
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_gradient_that_is_not_finite_does_not_stop_the_training_either():
    """A finite loss whose gradient is not a number, at one of the units tested first."""
    net, mask = model(), torch.ones(len(X))
    mask[3] = 0

    def rooted(_: int, rows: Tensor, __: torch.Generator) -> Tensor:
        return (net(X[rows]).square().sum(1) * mask[rows]).sqrt()

    weights = dict(net.named_parameters())
    asked = private(mechanism=Mechanism(noise=1.0, rate=1.0, steps=2), clip=0.1)
    log = fit_private(rooted, net, weights, private=asked, rate=0.1)
    assert len(log.losses) == 2
    assert torch.isfinite(flat(net)).all()


def test_a_loss_that_looks_at_other_samples_is_refused_by_the_self_test():
    net = model()

    def centred(_: int, rows: Tensor, __: torch.Generator) -> Tensor:
        out = net(X[rows])
        return (out - out.mean(0)).square().sum(1)

    before = flat(net).clone()
    with pytest.raises(TrainingError, match="changes with the other units"):
        fit_private(
            centred, net, dict(net.named_parameters()), private=private(), rate=0.1
        )
    assert torch.equal(flat(net), before)


def test_rows_in_another_order_are_refused_by_the_self_test():
    net = model()

    def turned(_: int, rows: Tensor, __: torch.Generator) -> Tensor:
        return net(X[rows].flip(0)).square().sum(1).flip(0)

    with pytest.raises(TrainingError, match="self-test failed"):
        fit_private(
            turned, net, dict(net.named_parameters()), private=private(), rate=0.1
        )


def test_a_loss_per_batch_is_refused():
    net = model()

    def single(_: int, rows: Tensor, __: torch.Generator) -> Tensor:
        return net(X[rows]).square().mean()

    with pytest.raises((TrainingError, RuntimeError)):
        fit_private(
            single, net, dict(net.named_parameters()), private=private(), rate=0.1
        )


@pytest.mark.parametrize("frozen", [False, True])
def test_batch_normalisation_is_refused_even_frozen(frozen):
    net = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 2))
    if frozen:
        net[1].requires_grad_(False)
    weights = {n: w for n, w in net.named_parameters() if w.requires_grad}
    with pytest.raises((ConfigError, TrainingError)):
        fit_private(loss_with(net), net, weights, private=private(), rate=0.1)


def test_nothing_but_the_named_weights_trains_and_no_trace_is_left():
    net = model()
    kept = copy.deepcopy(net.state_dict())
    weights = {n: w for n, w in net.named_parameters() if n.startswith("3.")}
    fit_private(loss_with(net), net, weights, private=private(), rate=0.1)
    for name, weight in net.named_parameters():
        assert weight.requires_grad
        assert not hasattr(weight, "grad_sample")
        assert torch.equal(weight, kept[name]) != name.startswith("3.")
    assert all("forward" not in vars(layer) for layer in net.modules())


def test_a_killed_training_goes_on_and_takes_all_its_steps(tmp_path):
    # at rate 1 somebody joins the step at which it dies
    asked = private(mechanism=Mechanism(noise=1.0, rate=1.0, steps=9), ema=0.5)
    net, steps = model(), []

    def dies(number: int, rows: Tensor, draw: torch.Generator) -> Tensor:
        steps.append(number)
        if number == 6:
            raise KeyboardInterrupt
        return loss_with(net)(number, rows, draw)

    options = {"private": asked, "rate": 0.1}
    checkpoint = Checkpoint(tmp_path / "state", every=2)
    weights = dict(net.named_parameters())
    with pytest.raises(KeyboardInterrupt):
        fit_private(dies, net, weights, checkpoint=checkpoint, **options)
    log = train(net, asked, checkpoint=checkpoint)
    assert len(log.losses) == 9
    assert not checkpoint.path.exists()


def test_the_average_over_steps_is_smoother_than_the_last_step():
    asked = {"mechanism": Mechanism(noise=3.0, rate=1.0, steps=30), "clip": 1e-6}
    spread = {}
    for decay in (0.0, 0.95):
        nets = []
        for _ in range(8):
            net = model()
            train(net, private(ema=decay, **asked))
            nets.append(flat(net))
        spread[decay] = torch.stack(nets).std(0).mean().item()
    assert spread[0.95] < spread[0.0]


def test_every_unit_gives_as_many_rows_and_all_of_its_images_come_up():
    asked = private(images=2, draws=3)
    rows = asked.rows([0, 1, 2])
    assert rows.shape == (3 * 2 * 3,)
    assert set(rows[6:12].tolist()) == {3}
    assert all(rows[k] == rows[k + 1] == rows[k + 2] for k in range(0, 18, 3))
    seen = {int(row) for _ in range(60) for row in asked.rows([0])}
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("units", [(), ((0,), ()), ((0, 1), (1, 2))])
def test_units_that_share_an_image_or_have_none_are_refused(units):
    with pytest.raises(ValueError, match="no image may be in two"):
        private(units=units)


@pytest.mark.parametrize(
    "wrong", [{"clip": 0.0}, {"clip": math.nan}, {"images": 0}, {"draws": -1}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        private(**wrong)
