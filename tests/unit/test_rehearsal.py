"""A dry run at a real site: it trains, and nothing is booked, kept or sent."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from vgmedgen.errors import BudgetError, ConfigError, PolicyError, TrainingError
from vgmedgen.privacy.accountant import spent
from vgmedgen.privacy.plan import PrivacyPlan
from vgmedgen.site.folder import Site
from vgmedgen.training import rounds
from vgmedgen.training.order import Order


def order(site, plan, number=1, stage="align", **changes):
    told = {
        "run": "run-1",
        "number": number,
        "stage": stage,
        "plan": plan,
        # not the site's own models: what an earlier order left in them must not count
        "weights": rounds.Workbench.open(
            site.bundle, plan, torch.device("cpu")
        ).states(),
        "turn": number if stage == "align" else number - plan.align_rounds,
    }
    return Order(**{**told, **changes})


@pytest.fixture
def private_site(private_hospitals, tmp_path):
    folder = tmp_path / private_hospitals[0].name
    shutil.copytree(private_hospitals[0], folder)
    return Site(folder)


def limited(site, **privacy):
    path = site.folder / "site.yaml"
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), {"privacy": privacy}), path)


def everything(folder):
    """Every file of a site but prepared samples, with its bytes."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "cache" not in path.parts
    }


def test_a_rehearsal_is_what_the_round_would_have_been(hospital, micro):
    asked = order(hospital, micro.plan)
    before = everything(hospital.folder)
    shown = hospital.rehearse(asked)
    assert everything(hospital.folder) == before
    outcome = hospital.train(asked)
    assert (shown.units, shown.loss_sum) == (outcome.units, outcome.loss_sum)
    for name, array in outcome.state.items():
        assert np.array_equal(shown.state[name], array)


def test_a_rehearsal_that_was_killed_leaves_nothing_to_the_next(hospital, micro):
    scratch = hospital.folder / "dry-run" / ".scratch"
    scratch.mkdir(parents=True)
    (scratch / "checkpoint").write_text("half")
    hospital.rehearse(order(hospital, micro.plan))
    assert not scratch.exists()


def test_a_rehearsal_that_fails_leaves_nothing(hospital, micro, monkeypatch):
    def broken(*_, **__):
        return torch.full((4,), torch.nan, requires_grad=True)

    monkeypatch.setattr("vgmedgen.training.align.prior_loss", broken)
    before = everything(hospital.folder)
    with pytest.raises(TrainingError):
        hospital.rehearse(order(hospital, micro.plan))
    assert everything(hospital.folder) == before


def test_under_dp_the_ledger_is_not_touched_and_the_real_round_is_booked(
    private_site, private_micro
):
    site, plan = private_site, private_micro.plan
    asked = order(site, plan)
    shown = site.rehearse(asked)
    assert not (site.folder / "ledger.sqlite").exists()
    assert shown.loss_sum is None
    wanted = spent(PrivacyPlan.of(plan).round("align"), plan.privacy.delta).epsilon
    assert shown.epsilon == pytest.approx(wanted)
    outcome = site.train(asked)
    booked = [row for row in site.ledger().rows() if row.kind == "stage"]
    assert len(booked) == 1
    assert outcome.epsilon == pytest.approx(shown.epsilon)
    # its noise is its own: what was shown is no answer
    assert any(
        not np.array_equal(outcome.state[name], shown.state[name])
        for name in outcome.state
    )
    rows = site.ledger().to_json()
    again = site.rehearse(order(site, plan, 2))
    assert again.epsilon > shown.epsilon
    assert site.ledger().to_json() == rows


def test_what_the_ledger_would_refuse_is_refused(private_site, private_micro, micro):
    site, plan = private_site, private_micro.plan
    with pytest.raises(BudgetError, match="without DP"):
        site.rehearse(order(site, micro.plan))
    limited(site, epsilon=1.0)
    with pytest.raises(BudgetError, match="needs epsilon"):
        site.rehearse(order(site, plan))
    limited(site, epsilon=6.0)
    with pytest.raises(PolicyError, match="claim end at"):
        site.rehearse(order(site, plan, 9, "generate"))
    assert not (site.folder / "ledger.sqlite").exists()
    site.ledger()  # begun, and nobody was trained on
    assert site.rehearse(order(site, plan)).epsilon > 0


def test_units_are_counted_as_training_counts_them(hospital):
    assert hospital.units == hospital.training.units > 0


def test_what_the_hospital_changes_in_its_file_holds_at_once(hospital):
    path = hospital.folder / "site.yaml"
    assert not hospital.policy.dry_run
    told = OmegaConf.load(path)
    OmegaConf.save(
        OmegaConf.merge(told, {"policy": {"dry_run": True}, "privacy": {"epsilon": 3}}),
        path,
    )
    assert hospital.policy.dry_run
    assert hospital.privacy.epsilon == 3
    path.write_text("policy: [")
    with pytest.raises(ConfigError):
        _ = hospital.policy
    path.unlink()
    with pytest.raises(ConfigError, match="there is no"):
        _ = hospital.privacy


def test_a_limit_that_is_tightened_counts_for_the_next_round(hospital, micro):
    limited(hospital, epsilon=2.0)
    with pytest.raises(BudgetError):
        hospital.train(order(hospital, micro.plan))
    with pytest.raises(PolicyError):
        hospital.evaluate(
            dataclasses.replace(order(hospital, micro.plan), number=3, stage="generate")
        )
