"""The one training loop: it learns, stops on nonsense, and resumes to the bit."""

from pathlib import Path

import pytest
import torch

from vgmedgen.errors import TrainingError
from vgmedgen.training.loop import (
    Checkpoint,
    fit,
    generator_of,
    pick,
    rate_factor,
    seed_of,
)

BATCH = {"count": 20, "batch": 8}


def problem(seed: int = 0):
    """A small regression: weights, and the loss of eight samples."""
    weights = {"w": torch.zeros(4, requires_grad=True)}
    goal = torch.arange(4.0)

    def loss_of(_: int, rows: torch.Tensor, generator: torch.Generator):
        x = torch.randn(len(rows), 4, generator=generator)
        return ((x @ weights["w"]) - (x @ goal)).square()

    return weights, loss_of


def test_training_approaches_the_answer():
    weights, loss_of = problem()
    log = fit(loss_of, weights, **BATCH, steps=300, rate=0.1, seed=0)
    assert log.tail_mean() < 0.01 * log.losses[0]


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    found = []
    for seed in (1, 1, 2):
        weights, loss_of = problem()
        fit(loss_of, weights, **BATCH, steps=20, rate=0.1, seed=seed)
        found.append(weights["w"].detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_killed_training_resumes_to_the_same_bits(tmp_path: Path):
    whole, loss_of = problem()
    fit(loss_of, whole, **BATCH, steps=40, rate=0.1, seed=3)

    checkpoint = Checkpoint(tmp_path / "state", every=7)
    killed, loss_of = problem()

    def dies(number: int, rows: torch.Tensor, generator: torch.Generator):
        if number == 25:
            raise KeyboardInterrupt
        return loss_of(number, rows, generator)

    with pytest.raises(KeyboardInterrupt):
        fit(dies, killed, **BATCH, steps=40, rate=0.1, seed=3, checkpoint=checkpoint)
    assert checkpoint.path.is_file()
    again, loss_of = problem()
    log = fit(
        loss_of, again, **BATCH, steps=40, rate=0.1, seed=3, checkpoint=checkpoint
    )
    assert torch.equal(again["w"], whole["w"])
    assert len(log.losses) == 40
    assert not checkpoint.path.exists()


def test_a_loss_that_is_not_finite_stops_with_nothing_saved(tmp_path: Path):
    weights, loss_of = problem()
    checkpoint = Checkpoint(tmp_path / "state", every=1)

    def breaks(number: int, rows: torch.Tensor, generator: torch.Generator):
        return loss_of(number, rows, generator) * (float("nan") if number == 5 else 1)

    with pytest.raises(TrainingError, match="loss is nan at step 6 of 9"):
        fit(breaks, weights, **BATCH, steps=9, rate=0.1, seed=0, checkpoint=checkpoint)
    assert list(tmp_path.iterdir()) == []
    assert torch.isfinite(weights["w"]).all()


def test_the_learning_rate_rises_then_falls_to_a_tenth():
    factors = [rate_factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(0.1, abs=0.01)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_large_gradients_are_clipped_over_everything_together():
    weights = {"a": torch.zeros(1, requires_grad=True), "b": torch.zeros(1)}
    weights["b"].requires_grad_()
    norms = []

    def loss_of(_: int, rows: torch.Tensor, __: torch.Generator):
        return 1e6 * (weights["a"] + weights["b"]).expand(len(rows))

    fit(loss_of, weights, **BATCH, steps=1, rate=0.1, seed=0)
    norms = [w.grad.norm().item() for w in weights.values()]
    assert sum(n**2 for n in norms) ** 0.5 == pytest.approx(1.0, rel=1e-3)


def test_seeds_depend_on_every_word_and_batches_hold_no_sample_twice():
    assert seed_of(1, "site-a", 2) != seed_of(1, "site-b", 2)
    assert seed_of("a", "b") == seed_of("a", "b") < 2**63
    rows = pick(10, 6, generator_of("x"))
    assert len(set(rows.tolist())) == 6
