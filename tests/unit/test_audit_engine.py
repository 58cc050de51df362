"""The auditor finds every bug planted in the engine, and none where there is none."""

import dataclasses

import pytest
import torch

from vgmedgen.audit import canaries, conformance, verdict
from vgmedgen.audit.fabricated import fabricate, swap_last
from vgmedgen.audit.trainer import SiteTrainer, noise_of, one_round
from vgmedgen.audit.verdict import Claim, Evidence, judge
from vgmedgen.config.plan import PrivacyConfig, RunPlan
from vgmedgen.privacy import engine
from vgmedgen.privacy.plan import PrivacyPlan
from vgmedgen.training import rounds
from vgmedgen.training.align import train_prior
from vgmedgen.training.rounds import Workbench
from vgmedgen.training.samples import Samples

EPSILON, STRICT = 1.0, 0.5
PLANNED = Claim(
    epsilon=EPSILON, delta=1e-5, unit="patient", accountant="PRV", scope="this run"
)


@pytest.fixture(scope="module")
def plan(micro) -> RunPlan:
    privacy = PrivacyConfig(enabled=True, epsilon=EPSILON)
    align = dataclasses.replace(micro.plan.align, mapper_steps=30, mapper_rate=1e-3)
    return dataclasses.replace(
        micro.plan, merge="alternate", privacy=privacy, align=align
    )


@pytest.fixture(scope="module")
def trainer(bundle, plan) -> SiteTrainer:
    return SiteTrainer(Workbench.open(bundle, plan, torch.device("cpu")))


@pytest.fixture(scope="module")
def samples(hospitals) -> Samples:
    from vgmedgen.site.folder import Site

    return Site(hospitals[0]).training


@pytest.fixture(autouse=True)
def few_draws(monkeypatch) -> None:
    """Noise is judged by fewer values, and with the wider margin that goes with them."""
    monkeypatch.setattr(conformance, "ENOUGH", 2000)


def failed(trainer, plan, samples, folder) -> set[str]:
    found = conformance.examine(trainer, plan, samples, folder)
    evidence = Evidence(
        claim=PLANNED, planned=PLANNED, why="", unit="patient", conformance=found
    )
    names = {one.name for one in found if not one.passed}
    assert judge(evidence).colour == (verdict.RED if names else verdict.GREEN)
    return names


def test_the_engine_as_it_is_passes_every_check(trainer, plan, samples, tmp_path):
    found = conformance.examine(trainer, plan, samples, tmp_path)
    assert [one.told for one in found if not one.passed] == []
    assert len(found) == 10


def test_noise_that_was_forgotten_turns_the_verdict_red(
    trainer, plan, samples, tmp_path, monkeypatch
):
    def silent(self) -> None:
        for weight in self.params:
            weight.grad = weight.summed_grad.clone()

    monkeypatch.setattr(engine.PrivateOptimizer, "add_noise", silent)
    names = failed(trainer, plan, samples, tmp_path)
    assert {f"the noise is there ({name})" for name in ("mapper", "generate")} <= names


def test_noise_of_half_the_size_turns_the_verdict_red(
    trainer, plan, samples, tmp_path, monkeypatch
):
    add = engine.PrivateOptimizer.add_noise

    def faint(self) -> None:
        self.noise_multiplier /= 2
        add(self)
        self.noise_multiplier *= 2

    monkeypatch.setattr(engine.PrivateOptimizer, "add_noise", faint)
    names = failed(trainer, plan, samples, tmp_path)
    assert any(name.startswith("the noise is there") for name in names)


def test_noise_that_follows_the_seed_turns_the_verdict_red(
    trainer, plan, samples, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        engine.Secret,
        "normal",
        lambda _, shape, std: (
            std * torch.randn(shape, generator=torch.Generator().manual_seed(0))
        ),
    )
    names = failed(trainer, plan, samples, tmp_path)
    assert "the noise is there (mapper)" in names


def test_empty_steps_without_noise_turn_the_verdict_red(
    trainer, plan, samples, tmp_path, monkeypatch
):
    add = engine.PrivateOptimizer.add_noise

    def careless(self) -> None:
        add(self)
        if not any(weight.summed_grad.any() for weight in self.params):
            for weight in self.params:
                weight.grad = torch.zeros_like(weight)

    monkeypatch.setattr(engine.PrivateOptimizer, "add_noise", careless)
    names = failed(trainer, plan, samples, tmp_path)
    assert names == {f"an empty step is noise ({n})" for n in ("mapper", "generate")}


def test_a_clip_that_was_forgotten_turns_the_verdict_red(
    trainer, plan, samples, tmp_path, monkeypatch
):
    def unclipped(self) -> None:
        for weight in self.params:
            found, held = weight.grad_sample.sum(0), weight.summed_grad
            weight.summed_grad = found if held is None else held + found

    monkeypatch.setattr(engine.PrivateOptimizer, "clip_and_accumulate", unclipped)
    names = failed(trainer, plan, samples, tmp_path)
    assert "one unit moves the sum by no more than the clip" in names
    assert "a unit is clipped whole (mapper)" in names


def test_a_private_prior_turns_the_verdict_red(
    trainer, plan, samples, tmp_path, monkeypatch
):
    """The leak that no accounting of the mapper sees: its targets know every patient."""

    def trained(samples: Samples, bench: Workbench, public=rounds._public_prior):
        prior = public(bench)
        ask = dataclasses.replace(plan.align, prior_steps=2, batch=4)
        train_prior(prior, samples, ask, seed=0)
        return prior

    train = rounds.train

    def leaky(bench, desk, order):
        with monkeypatch.context() as patch:
            patch.setattr(rounds, "_public_prior", lambda b: trained(desk.samples, b))
            return train(bench, desk, order)

    monkeypatch.setattr(rounds, "train", leaky)
    names = failed(trainer, plan, samples, tmp_path)
    assert "no unit changes another's gradient" in names


def test_normalising_by_the_data_turns_the_verdict_red(
    trainer, plan, samples, tmp_path, monkeypatch
):
    train = rounds.train

    def leaky(bench, desk, order):
        level = desk.samples.embeddings - desk.samples.embeddings.mean(0)
        samples = dataclasses.replace(desk.samples, embeddings=level)
        return train(bench, dataclasses.replace(desk, samples=samples), order)

    monkeypatch.setattr(rounds, "train", leaky)
    names = failed(trainer, plan, samples, tmp_path)
    assert "no unit changes another's gradient" in names


def test_a_unit_split_over_two_turns_the_verdict_red(
    trainer, plan, samples, tmp_path, monkeypatch
):
    whole = Samples.by_unit
    monkeypatch.setattr(
        rounds,
        "private_of",
        lambda plan, training, samples, of=rounds.private_of: dataclasses.replace(
            of(plan, training, samples),
            units=tuple((row,) for unit in whole(samples) for row in unit),
        ),
    )
    names = failed(trainer, plan, samples, tmp_path)
    assert "a unit is clipped whole (mapper)" in names
    assert "a unit is clipped whole (generate)" in names


def test_an_engine_that_takes_no_step_is_not_taken_for_a_sound_one(
    plan, samples, tmp_path
):
    class Idle:
        def __call__(self, *_: object) -> dict:
            return {}

        def restart(self) -> None:
            raise AssertionError

    found = conformance.examine(Idle(), plan, samples, tmp_path)
    assert sum(one.passed for one in found) == 1  # the plan's arithmetic alone
    assert all("counts as failed" in one.told for one in found if not one.passed)


def test_noise_that_is_too_small_for_the_claim_turns_the_verdict_red(plan, monkeypatch):
    cheap = PrivacyPlan.of(dataclasses.replace(plan, align_rounds=1, generate_rounds=1))
    monkeypatch.setattr(
        conformance.PrivacyPlan,
        "of",
        lambda p: dataclasses.replace(
            cheap,
            trainings={
                name: dataclasses.replace(one, rounds=8)
                for name, one in cheap.trainings.items()
            },
        ),
    )
    passed, told = conformance._claim(plan)
    assert not passed
    assert "claimed is 1" in told


def plant(trainer, plan, samples, folder, training="mapper", count=96):
    return canaries.plant(
        trainer, training, plan, samples, folder, count=count, delta=1e-5
    )


def colour_of(found, epsilon: float = EPSILON) -> str:
    claim = dataclasses.replace(PLANNED, epsilon=epsilon)
    evidence = Evidence(
        claim=claim, planned=claim, why="", unit="patient", canaries=(found,)
    )
    return judge(evidence).colour


def test_canaries_under_the_plans_noise_stay_below_the_claim(
    trainer, plan, samples, tmp_path
):
    found = plant(trainer, plan, samples, tmp_path)
    assert found.steps == 60  # all rounds of the run
    assert found.proven.epsilon < EPSILON
    assert colour_of(found) == verdict.GREEN


def test_canaries_prove_that_noise_was_forgotten(
    trainer, plan, samples, tmp_path, monkeypatch
):
    def silent(self) -> None:
        for weight in self.params:
            weight.grad = weight.summed_grad.clone()

    monkeypatch.setattr(engine.PrivateOptimizer, "add_noise", silent)
    # so few canaries in so small a mapper can only refute a strict claim
    privacy = dataclasses.replace(plan.privacy, epsilon=STRICT, rate=1.0)
    align = dataclasses.replace(plan.align, mapper_rate=3e-3)
    strict = dataclasses.replace(plan, privacy=privacy, align=align)
    found = plant(trainer, strict, samples, tmp_path, count=64)
    assert found.proven.epsilon > STRICT
    assert colour_of(found, STRICT) == verdict.RED


def test_canaries_in_the_generator_stay_below_the_claim(
    trainer, plan, samples, tmp_path
):
    found = plant(trainer, plan, samples, tmp_path, "generate", 24)
    assert found.steps == 4
    assert len(found.scores) == len(found.included) == 24
    assert colour_of(found) == verdict.GREEN


def test_a_run_in_one_round_costs_what_the_run_costs(plan):
    for stage, training in (("align", "mapper"), ("generate", "generate")):
        whole = one_round(plan, stage)
        assert noise_of(whole, training)[1] == pytest.approx(
            noise_of(plan, training)[1], rel=1e-9
        )


def test_nothing_of_the_site_is_left_in_canaries_nor_of_canaries_in_the_models(
    trainer, plan, samples, tmp_path
):
    before = trainer.restart().states()
    made = fabricate(6, 2, samples, tmp_path, seed=0)
    plant(trainer, plan, samples, tmp_path, count=16)
    after = trainer.restart().states()
    for group, arrays in before.items():
        assert all((after[group][name] == a).all() for name, a in arrays.items())
    real = torch.cdist(made.embeddings, samples.embeddings)
    assert real.min() > 0
    assert made.units == 6
    again = fabricate(6, 2, samples, tmp_path / "again", seed=0)
    assert torch.equal(made.latents, again.latents)
    other = fabricate(7, 2, samples, tmp_path, seed=0)
    swapped = swap_last(made, other)
    assert swapped.by_unit() == made.by_unit()
    assert torch.equal(swapped.embeddings[:-2], made.embeddings[:-2])
    assert not torch.equal(swapped.embeddings[-2:], made.embeddings[-2:])


def test_watching_a_training_changes_nothing_and_ends_with_it(trainer, plan, samples):
    found = trainer(samples, one_round(plan, "align", steps=2), "align")["mapper"]
    assert found.count == 2
    assert len(found.segments) == 2
    assert all(part.total.isfinite().all() for part in found.segments)
    count = found.count
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    torch.optim.SGD([weight], lr=0.1).step()
    assert found.count == count
