"""Records that hang on other units: each breaks the claim, and the audit goes red."""

import dataclasses

import torch

from tests.audited import CLIP, OTHERS, has
from vgmedgen.audit import isolation, recorded, whole
from vgmedgen.privacy import engine
from vgmedgen.training import align, rounds
from vgmedgen.training.rounds import Workbench
from vgmedgen.training.samples import Samples


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
