"""The plan of a run: noise for every training under one claim, fixed beforehand."""

import dataclasses
import re

import pytest

from vgmedgen.config.plan import (
    AlignConfig,
    GenerateConfig,
    PrivacyConfig,
    RunPlan,
    replace_one,
)
from vgmedgen.errors import ConfigError
from vgmedgen.privacy.accountant import spent
from vgmedgen.privacy.plan import PrivacyPlan, calibrate


def plan(**privacy) -> RunPlan:
    return RunPlan(
        align_rounds=2,
        generate_rounds=3,
        align=AlignConfig(mapper_steps=5, prior_steps=4),
        generate=GenerateConfig(steps=10),
        privacy=PrivacyConfig(enabled=True, epsilon=4.0, unit="lesion", **privacy),
    )


@pytest.mark.parametrize(
    "privacy", [{}, {"align_share": 0.5}, {"prior": "private", "align_share": 0.4}]
)
def test_all_rounds_of_all_trainings_together_spend_the_claim_and_no_more(privacy):
    found = PrivacyPlan.of(plan(**privacy))
    assert 0.99 * 4.0 < spent(found.whole(), found.delta).epsilon <= 4.0
    by_round = [
        mechanism
        for stage, rounds in (("align", 2), ("generate", 3))
        for _ in range(rounds)
        for mechanism in found.round(stage)
    ]
    assert spent(by_round, found.delta).epsilon == pytest.approx(
        spent(found.whole(), found.delta).epsilon
    )


def test_without_shares_every_training_has_the_same_noise():
    noises = {
        t.mechanism.noise
        for t in PrivacyPlan.of(plan(prior="private")).trainings.values()
    }
    assert len(noises) == 1


def test_a_larger_share_for_align_is_less_noise_there_and_more_in_generate():
    small, large = (PrivacyPlan.of(plan(align_share=s)).trainings for s in (0.2, 0.6))
    assert large["mapper"].mechanism.noise < small["mapper"].mechanism.noise
    assert large["generate"].mechanism.noise > small["generate"].mechanism.noise


def test_what_a_machine_may_choose_is_not_in_the_plan_and_the_rest_is_in_its_digest():
    first = plan()
    for change in ({"rate": 0.3}, {"generate_clip": 0.5}, {"draws": 9}, {"images": 3}):
        changed = dataclasses.replace(
            first, privacy=dataclasses.replace(first.privacy, **change)
        )
        assert changed.digest != first.digest
    knobs = {field.name for field in dataclasses.fields(PrivacyConfig)}
    assert not knobs & {"device", "threads", "micro", "precision", "seed"}


def test_a_prior_trained_without_dp_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="reveals them through the text mapper"):
        plan(prior="local")


def test_a_run_without_dp_has_no_plan_of_privacy():
    with pytest.raises(ConfigError, match=r"privacy\.enabled is false"):
        PrivacyPlan.of(RunPlan())


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0.0},
        {"epsilon": -1.0},
        {"epsilon": float("nan")},
        {"epsilon": 1e6},
        {"delta": 0.0},
        {"delta": float("nan")},
        {"delta": 0.5},
        {"rate": 0.0},
        {"rate": 1.5},
        {"rate": float("nan")},
        {"generate_clip": 0.0},
        {"mapper_clip": float("nan")},
        {"prior_clip": float("inf")},
        {"unit": "hospital"},
        {"batch": 0},
        {"images": 0},
        {"draws": 0},
        {"ema": 1.0},
    ],
)
def test_values_that_are_no_promise_are_refused(wrong):
    with pytest.raises(ConfigError):
        PrivacyConfig(enabled=True, **wrong)


def test_the_noise_is_the_smallest_that_keeps_the_claim():
    from vgmedgen.privacy.accountant import Mechanism

    noise = calibrate(epsilon=3.0, rate=0.25, steps=40)
    for factor, kept in ((1.0, True), (0.998, False)):
        made = Mechanism(noise=factor * noise, rate=0.25, steps=40)
        assert (spent([made], 1e-5).epsilon <= 3.0) == kept


def test_replace_one_is_told_as_what_an_accountant_of_another_house_allows():
    from dp_accounting import (
        GaussianDpEvent,
        NeighboringRelation,
        PoissonSampledDpEvent,
    )
    from dp_accounting.pld import PLDAccountant

    epsilon, delta, rate, steps = 3.0, 1e-5, 0.25, 40
    noise = calibrate(epsilon=epsilon, delta=delta, rate=rate, steps=steps)
    accountant = PLDAccountant(NeighboringRelation.REPLACE_ONE)
    accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
    words = replace_one(epsilon, delta)
    stated, worse = (float(word) for word in re.findall(r"\d[\d.e-]*\d|\d", words))
    assert stated == 2 * epsilon
    assert accountant.get_epsilon(worse) <= stated
    # and it is no formality: the printed epsilon itself does not hold there
    assert accountant.get_epsilon(delta) > 1.2 * epsilon
