"""Bugs in the clip, the denominator and the steps: the audit goes red."""

import dataclasses

import pytest
import torch

from tests.audited import ANSWER, CLIP, COMPLETE, DENOMINATOR, WEIGHTS, has
from vgmedgen.privacy import engine
from vgmedgen.privacy.engine import Private, PrivateOptimizer
from vgmedgen.training import align, loop, rounds


def test_a_clip_of_the_sum_instead_of_the_units(red, monkeypatch):
    def late(self: PrivateOptimizer) -> None:
        norm = torch.stack([w.grad_sample.sum(0).norm() for w in self.params]).norm()
        factor = (self.max_grad_norm / norm).clamp(max=1.0)
        for w in self.params:
            found, held = factor * w.grad_sample.sum(0), w.summed_grad
            w.summed_grad = found if held is None else held + found

    monkeypatch.setattr(PrivateOptimizer, "clip_and_accumulate", late)
    assert has(red(), CLIP, "mapper")


def test_a_clip_that_adapts_to_the_batch(red, monkeypatch):
    clip = PrivateOptimizer.clip_and_accumulate

    def adapted(self: PrivateOptimizer) -> None:
        norms = torch.stack(
            [w.grad_sample.flatten(1).norm(dim=1) for w in self.params]
        ).norm(dim=0)
        held = self.max_grad_norm
        if len(norms):
            self.max_grad_norm = float(norms.median())
        clip(self)
        self.max_grad_norm = held

    monkeypatch.setattr(PrivateOptimizer, "clip_and_accumulate", adapted)
    assert has(red(), CLIP)


def test_a_clip_after_scaling_by_second_moments(red, monkeypatch):
    clip = PrivateOptimizer.clip_and_accumulate

    def scaled(self: PrivateOptimizer) -> None:
        for w in self.params:
            if len(w.grad_sample):
                moment = w.grad_sample.square().mean(0).sqrt() + 1e-8
                w.grad_sample = w.grad_sample / moment
        clip(self)

    monkeypatch.setattr(PrivateOptimizer, "clip_and_accumulate", scaled)
    assert has(red(), CLIP)


def test_a_unit_counted_in_two_parts_of_a_step(red, monkeypatch):
    monkeypatch.setattr(
        Private, "parts", lambda _, units: [units, units[:1]] if units else [()]
    )
    assert has(red(), CLIP)


def test_a_sum_divided_by_those_who_joined(red, monkeypatch):
    scale, graded = PrivateOptimizer.scale_grad, [1]
    draw = Private.draw

    def counted(self: Private) -> list[int]:
        units = draw(self)
        graded[0] = max(1, len(units))
        return units

    def private(self: PrivateOptimizer) -> None:
        self.expected_batch_size = graded[0]
        scale(self)

    monkeypatch.setattr(Private, "draw", counted)
    monkeypatch.setattr(PrivateOptimizer, "scale_grad", private)
    assert has(red(), DENOMINATOR)


# --- what moves the weights, and what is sent


def test_weight_decay_that_follows_the_bare_loss(red, monkeypatch):
    step = engine.step

    def adapted(loss, number, per_unit, optimizer, private):
        value = step(loss, number, per_unit, optimizer, private)
        for group in optimizer.param_groups:
            group["weight_decay"] = 1e-2 * torch.tensor(value).nan_to_num().item()
        return value

    monkeypatch.setattr(engine, "step", adapted)
    assert has(red(), WEIGHTS)


def test_a_step_without_noise_after_the_last(red, monkeypatch):
    fit = loop.fit_private

    def more(loss_of, model, weights, **options):
        log = fit(loss_of, model, weights, **options)
        draw = torch.Generator().manual_seed(0)
        loss = loss_of(0, torch.arange(4), draw).mean()
        found = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            for weight, gradient in zip(weights.values(), found, strict=True):
                weight.sub_(1e-3 * gradient)
        return log

    monkeypatch.setattr(align, "fit_private", more)
    assert any(name.startswith(ANSWER) for name in red())


def test_a_factor_that_is_trained_beside_the_clip(red, monkeypatch):
    train = rounds.train_generator

    def beside(generator, weights, samples, condition, schedule, config, **options):
        from vgmedgen.models import lora

        log = train(generator, weights, samples, condition, schedule, config, **options)
        rest = {
            name: w
            for name, w in lora.parameters(generator).items()
            if name not in weights
        }
        bare = dataclasses.replace(config, steps=2)
        options = {"seed": 0, "codec": options["codec"]}
        train(generator, rest, samples, condition, schedule, bare, **options)
        return log

    monkeypatch.setattr(rounds, "train_generator", beside)
    names = red()
    assert any(name.startswith(ANSWER) for name in names)


def test_the_best_step_is_sent_instead_of_the_last(red, monkeypatch):
    step, best = engine.step, {}

    def kept(loss, number, per_unit, optimizer, private):
        value = step(loss, number, per_unit, optimizer, private)
        if number == 0 or value < best.get("loss", float("inf")):
            best["loss"] = value
            best["weights"] = [w.detach().clone() for w in optimizer.params]
        if number == private.mechanism.steps - 1:
            with torch.no_grad():
                for w, value_ in zip(optimizer.params, best["weights"], strict=True):
                    w.copy_(value_)
        return value

    monkeypatch.setattr(engine, "step", kept)
    assert has(red(), WEIGHTS)


def test_steps_that_nobody_joins_are_left_out(red, plan, monkeypatch):
    step = engine.step

    def skipping(loss, number, per_unit, optimizer, private):
        draw = Private.draw
        chosen = draw(private)
        if not chosen:
            return float("nan")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Private, "draw", lambda _: chosen)
            return step(loss, number, per_unit, optimizer, private)

    monkeypatch.setattr(engine, "step", skipping)
    seldom = dataclasses.replace(
        plan, privacy=dataclasses.replace(plan.privacy, rate=0.08)
    )
    assert has(red(seldom), COMPLETE)


# --- what a loss reads
