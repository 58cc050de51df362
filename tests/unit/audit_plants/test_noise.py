"""Bugs in the noise of a step: each breaks the claim, and the audit goes red."""

from collections.abc import Callable

import pytest
import torch

from tests.audited import COMPLETE, NOISE, REUSE, SECRET, has
from vgmedgen.privacy import engine, randomness
from vgmedgen.privacy.engine import PrivateOptimizer
from vgmedgen.training import align, generate, loop


def noisy(monkeypatch, change: Callable[[PrivateOptimizer, int], None]) -> None:
    """Let `change` alter what the honest noise left, given the step's number."""
    add, count = PrivateOptimizer.add_noise, [0]

    def changed(self: PrivateOptimizer) -> None:
        add(self)
        change(self, count[0])
        count[0] += 1

    monkeypatch.setattr(PrivateOptimizer, "add_noise", changed)


def noise_of(self: PrivateOptimizer) -> list[torch.Tensor]:
    return [w.grad - w.summed_grad for w in self.params]


def test_one_noise_for_all_tensors_of_one_shape(red, monkeypatch):
    def shared(self: PrivateOptimizer, _: int) -> None:
        first: dict[torch.Size, torch.Tensor] = {}
        for w, noise in zip(self.params, noise_of(self), strict=True):
            w.grad = w.summed_grad + first.setdefault(w.shape, noise)

    noisy(monkeypatch, shared)
    names = red()
    assert has(names, REUSE)
    assert has(names, SECRET)


def test_the_noise_of_a_step_used_again_in_the_next(red, monkeypatch):
    held: list[list[torch.Tensor]] = []

    def again(self: PrivateOptimizer, number: int) -> None:
        if number % 2 == 0:
            held[:] = [noise_of(self)]
        elif held and len(held[0]) == len(self.params):
            for w, noise in zip(self.params, held[0], strict=True):
                w.grad = w.summed_grad + noise

    noisy(monkeypatch, again)
    assert has(red(), REUSE)


@pytest.mark.parametrize(("factor", "after"), [(0.05, 3), (0.96, 0)])
def test_noise_that_is_a_little_or_later_too_small(red, monkeypatch, factor, after):
    """In the secret itself, where nothing but its size can tell."""
    standard = randomness.Secret._standard
    calls = [0]

    def small(self, count: int) -> torch.Tensor:
        calls[0] += 1
        return standard(self, count) * (factor if calls[0] > after else 1)

    monkeypatch.setattr(randomness.Secret, "_standard", small)
    names = red()
    assert has(names, NOISE)
    assert not has(names, SECRET)


def test_noise_of_the_right_deviation_that_is_not_gaussian(red, monkeypatch):
    monkeypatch.setattr(
        randomness.Secret,
        "_standard",
        lambda self, count: (self.uniform(count) - 0.5) * 12**0.5,
    )
    assert has(red(), NOISE)


def test_noise_on_half_of_the_weights_with_the_right_total(red, monkeypatch):
    def half(self, count: int) -> torch.Tensor:
        drawn = (self.uniform(2 * count).view(2, -1) - 0.5) * 12**0.5
        drawn[0, ::2] = 0
        return drawn[0] * 2**0.5

    monkeypatch.setattr(randomness.Secret, "_standard", half)
    assert has(red(), NOISE)


def test_noise_from_the_global_generator(red, monkeypatch):
    monkeypatch.setattr(
        randomness.Secret, "normal", lambda _, shape, std: torch.randn(shape) * std
    )
    names = red()
    assert has(names, REUSE)  # two runs have the same
    assert has(names, SECRET)


def test_a_stream_whose_key_is_the_step(red, monkeypatch):
    """A sound cipher with a key that anyone can count up to."""
    count = [0]

    def counted(size: int) -> bytes:
        count[0] += 1
        return count[0].to_bytes(size, "big")

    normal = randomness.Secret.normal

    def seeded(self, shape, std):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(randomness.os, "urandom", counted)
            return normal(self, shape, std)

    begin = loop.fit_private

    def restarted(*args, **kwargs):
        count[0] = 0
        return begin(*args, **kwargs)

    monkeypatch.setattr(randomness.Secret, "normal", seeded)
    monkeypatch.setattr(align, "fit_private", restarted)
    monkeypatch.setattr(generate, "fit_private", restarted)
    assert has(red(), REUSE)


def test_noise_on_the_first_part_of_a_step_only(red, monkeypatch):
    monkeypatch.setattr(engine, "ROWS", 8)
    add, step = PrivateOptimizer.add_noise, engine.step
    first = [True]

    def once(self: PrivateOptimizer) -> None:
        if first[0]:
            add(self)
            first[0] = False
        else:
            for w in self.params:
                w.grad = w.summed_grad.clone()

    def stepped(*args, **kwargs):
        first[0] = True
        return step(*args, **kwargs)

    monkeypatch.setattr(PrivateOptimizer, "add_noise", once)
    monkeypatch.setattr(PrivateOptimizer, "signal_skip_step", lambda *_, **__: None)
    monkeypatch.setattr(engine, "step", stepped)
    names = red()
    assert has(names, NOISE)
    assert has(names, COMPLETE)


def test_a_bare_gradient_rides_on_the_noise(red, monkeypatch):
    """Momentum that remembers sums from before their noise."""
    held: dict[int, torch.Tensor] = {}

    def momentum(self: PrivateOptimizer, _: int) -> None:
        for w in self.params:
            before = held.get(id(w), torch.zeros_like(w))
            w.grad = w.grad + 0.9 * before
            held[id(w)] = w.summed_grad.clone()

    noisy(monkeypatch, momentum)
    assert has(red(), SECRET)


# --- clip, sum and denominator
