"""Bugs in who joins a step: each breaks the claim, and the audit goes red.

What a plant needs of the engine it takes from the engine as it is, so that nothing but
the bug differs. The engine as it is passes.
"""

import dataclasses

import torch

from tests.audited import JOINING, has
from vgmedgen.audit import recorded
from vgmedgen.privacy.engine import Private
from vgmedgen.training.rounds import Workbench


def test_the_engine_as_it_is_passes_every_question(red):
    assert red(worlds=True) == set()


def test_an_engine_that_trains_its_prior_with_noise_passes_too(bundle, plan, samples):
    private = dataclasses.replace(
        plan, privacy=dataclasses.replace(plan.privacy, prior="private")
    )
    bench = Workbench.open(bundle, private, torch.device("cpu"))
    found = recorded.examine(bench, bench.states(), private, samples, spots=1, units=1)
    assert [one.told for one in found if not one.passed] == []
    assert any("(prior)" in one.name for one in found)


# --- who joins


def test_sampling_without_replacement(red, monkeypatch):
    def fixed(self: Private) -> list[int]:
        size = round(self.expected)
        return self.secret.uniform(len(self.units)).argsort()[:size].tolist()

    monkeypatch.setattr(Private, "draw", fixed)
    assert has(red(), JOINING)


def test_the_sampling_rate_doubled(red, monkeypatch):
    monkeypatch.setattr(
        Private,
        "draw",
        lambda self: self.secret.joins(len(self.units), 2 * self.mechanism.rate),
    )
    assert has(red(), JOINING)


def test_one_unit_that_joins_every_step(red, monkeypatch):
    draw = Private.draw
    monkeypatch.setattr(Private, "draw", lambda self: sorted({3, *draw(self)}))
    assert has(red(), JOINING)


def test_shuffled_epochs_instead_of_coins(red, monkeypatch):
    deck: list[int] = []

    def dealt(self: Private) -> list[int]:
        size = round(self.expected)
        if len(deck) < size:
            deck[:] = self.secret.uniform(len(self.units)).argsort().tolist()
        return [deck.pop() for _ in range(size)]

    monkeypatch.setattr(Private, "draw", dealt)
    assert has(red(), JOINING)


def test_two_units_that_always_join_together(red, monkeypatch):
    draw = Private.draw

    def paired(self: Private) -> list[int]:
        chosen = set(draw(self))
        return sorted(chosen | {1} if 0 in chosen else chosen - {1})

    monkeypatch.setattr(Private, "draw", paired)
    assert has(red(), JOINING)


def test_a_batch_that_is_used_for_two_steps(red, monkeypatch):
    draw, held = Private.draw, []

    def again(self: Private) -> list[int]:
        if held:
            return held.pop()
        held.append(draw(self))
        return held[0]

    monkeypatch.setattr(Private, "draw", again)
    assert has(red(), JOINING)


def test_who_joins_follows_the_seed(red, monkeypatch):
    monkeypatch.setattr(
        Private,
        "draw",
        lambda self: (
            (torch.rand(len(self.units)) < self.mechanism.rate)
            .nonzero()
            .flatten()
            .tolist()
        ),
    )
    assert has(red(), JOINING)


# --- the noise
