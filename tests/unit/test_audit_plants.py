"""Bugs planted into a site's real engine: each breaks the claim, and the audit goes red.

The first eight were not seen by an audit of single steps. What a plant needs of the engine
it takes from the engine as it is, so that nothing but the bug differs.
"""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from vgmedgen.audit import isolation, recorded, whole
from vgmedgen.plan import Plan, PrivacyConfig
from vgmedgen.privacy import engine, randomness
from vgmedgen.privacy.engine import Private, PrivateOptimizer
from vgmedgen.site import Site
from vgmedgen.training import align, generate, loop, rounds
from vgmedgen.training.rounds import Workbench
from vgmedgen.training.samples import Samples

STEPS = 24
JOINING, NOISE, REUSE = "who joins is", "the noise is there", "no noise is used twice"
CLIP, DENOMINATOR = "each unit is clipped", "the sum is divided"
SECRET, WEIGHTS, ANSWER = "the noise is the secret's", "weights move", "answers are"
COMPLETE, OTHERS = "every step is the plan's", "others' records"


@pytest.fixture(scope="module")
def plan(micro) -> Plan:
    ask = dataclasses.replace(
        micro.plan.align, mapper_steps=STEPS, mapper_rate=1e-3, prior_steps=STEPS
    )
    return dataclasses.replace(
        micro.plan,
        merge="alternate",
        align_rounds=1,
        generate_rounds=1,
        privacy=PrivacyConfig(enabled=True, epsilon=3.0, draws=2),
        align=ask,
        generate=dataclasses.replace(micro.plan.generate, steps=STEPS),
    )


@pytest.fixture(scope="module")
def bench(bundle, plan) -> Workbench:
    return Workbench.open(bundle, plan, torch.device("cpu"))


@pytest.fixture(scope="module")
def start(bench):
    return bench.states()


@pytest.fixture(scope="module")
def samples(hospitals):
    return Site(hospitals[0]).training


@pytest.fixture
def red(bench, start, plan, samples) -> Callable[..., set[str]]:
    """Names of the findings that are red; `worlds` tries others' records too."""

    def names(asked: Plan = plan, *, worlds: bool = False) -> set[str]:
        longer = recorded.lengthened(asked)
        first = whole.record(bench, start, asked, samples, spots=2)
        second = whole.record(bench, start, longer, samples, spots=1)
        leaks = {name: [] for name in whole.trainings(asked)}
        if worlds:
            leaks = isolation.leaks(bench, start, asked, samples, units=1)
        found = recorded.judge(asked, longer, first, second, leaks)
        assert [one.name for one in found if not one.told] == []
        return {one.name for one in found if not one.passed}

    return names


def has(names: set[str], beginning: str, *trainings: str) -> bool:
    """Whether a finding is red in all these trainings."""
    return all(
        any(n.startswith(beginning) and n.endswith(f"({t})") for n in names)
        for t in trainings or ("mapper", "generate")
    )


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
        from vgmedgen.dit import lora

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


def test_latents_of_the_prior_centred_by_the_sites_own_mean(red, monkeypatch):
    see = rounds.see

    def centred(prior, samples):
        seen = see(prior, samples)
        return align.Latents(
            seen.anatomy - seen.anatomy.mean(0), seen.style - seen.style.mean(0)
        )

    monkeypatch.setattr(rounds, "see", centred)
    assert has(red(worlds=True), OTHERS, "mapper")


def test_latents_of_images_centred_by_the_sites_own_mean(red, monkeypatch):
    train = rounds.train_generator

    def centred(generator, weights, samples, *args, **options):
        level = samples.latents - samples.latents.mean(0)
        changed = dataclasses.replace(samples, latents=level)
        return train(generator, weights, changed, *args, **options)

    monkeypatch.setattr(rounds, "train_generator", centred)
    assert has(red(worlds=True), OTHERS, "generate")


def test_conditions_scaled_by_the_sites_own_captions(red, monkeypatch):
    map_text = rounds.map_text

    def scaled(mapper, embeddings):
        return map_text(mapper, embeddings / embeddings.std(0).clamp_min(1e-3))

    monkeypatch.setattr(rounds, "map_text", scaled)
    assert has(red(worlds=True), OTHERS, "generate")


@dataclasses.dataclass(frozen=True)
class Centred(Samples):
    """Samples whose images have something taken off."""

    mean: torch.Tensor

    def pixels(self, rows):
        image, mask = super().pixels(rows)
        return image - self.mean, mask


def test_images_of_a_private_prior_centred_by_the_sites_own_mean(
    bundle, plan, samples, monkeypatch
):
    train = rounds.train_prior

    def centred(prior, samples, *args, **options):
        mean = samples.pixels(range(len(samples)))[0].mean(0)
        changed = Centred(**samples.__dict__, mean=mean)
        return train(prior, changed, *args, **options)

    monkeypatch.setattr(rounds, "train_prior", centred)
    private = dataclasses.replace(
        plan, privacy=dataclasses.replace(plan.privacy, prior="private")
    )
    bench = Workbench.open(bundle, private, torch.device("cpu"))
    leaks = isolation.leaks(bench, bench.states(), private, samples, units=1)
    assert leaks["prior"]
    assert leaks["mapper"] == leaks["generate"] == []


def test_a_loss_that_remembers_what_it_saw(red, monkeypatch):
    """A running mean of the targets, as a layer with state would keep."""
    honest = align.align_loss
    running: list[torch.Tensor] = []

    def remembering(mapper, embedding, anatomy, style, weight):
        if not running:
            running.append(torch.zeros_like(anatomy[0]))
        loss = honest(mapper, embedding, anatomy - running[0], style, weight)
        running[0] = 0.9 * running[0] + 0.1 * anatomy.mean(0)
        return loss

    monkeypatch.setattr(align, "align_loss", remembering)
    monkeypatch.setattr(engine, "self_test", lambda *_: None)
    names = red(worlds=True)
    assert has(names, OTHERS, "mapper")
    assert has(names, CLIP, "mapper")


def test_a_training_that_stops_itself_is_no_sound_one(
    bench, start, plan, samples, monkeypatch
):
    honest = align.align_loss
    monkeypatch.setattr(
        align, "align_loss", lambda *asked: honest(*asked) + asked[2].mean()
    )
    found = recorded.examine(bench, start, plan, samples, spots=1, units=1)
    assert [one.passed for one in found] == [False]
    assert "self-test" in found[0].told


def test_a_loss_that_compares_the_units_of_a_batch(red, monkeypatch):
    honest = align.align_loss

    def contrasting(mapper, embedding, anatomy, style, weight):
        loss = honest(mapper, embedding, anatomy, style, weight)
        said, _ = mapper(embedding)
        return loss + (said @ anatomy.T).logsumexp(1)

    monkeypatch.setattr(align, "align_loss", contrasting)
    monkeypatch.setattr(engine, "self_test", lambda *_: None)
    assert has(red(worlds=True), OTHERS, "mapper")


# --- the recorder


def test_nothing_is_recorded_outside_an_audit(bench, start, plan, samples, tmp_path):
    from vgmedgen.privacy.recording import recorder
    from vgmedgen.training.order import Order
    from vgmedgen.training.rounds import Desk

    first = whole.record(bench, start, plan, samples, spots=1)
    assert recorder() is None
    steps = [len(one.steps) for one in first.recordings]
    order = Order(run="r", number=1, stage="align", plan=plan, weights=start)
    rounds.train(bench, Desk("s", samples, tmp_path), order)
    assert [len(one.steps) for one in first.recordings] == steps
