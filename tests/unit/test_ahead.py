"""What is still ahead of a run: one sum, for the ledger and for a dry run alike."""

import dataclasses
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from vgmedgen.base import Bundle
from vgmedgen.config.plan import AlignConfig, GenerateConfig, PrivacyConfig, RunPlan
from vgmedgen.errors import VGMedGenError
from vgmedgen.privacy.accountant import merged
from vgmedgen.privacy.ledger import Ledger
from vgmedgen.privacy.plan import PrivacyPlan
from vgmedgen.site.config import SitePrivacy
from vgmedgen.training import accountable
from vgmedgen.training.order import Order

BUNDLE = Bundle(Path("nowhere"), {"toy": True})
UNITS = {f"patient-{k}": [f"image-{k}"] for k in range(40)}


def plan_of(enabled: bool = True, **privacy) -> RunPlan:
    return RunPlan(
        align_rounds=2,
        generate_rounds=3,
        align=AlignConfig(mapper_steps=5, prior_steps=4),
        generate=GenerateConfig(steps=6),
        privacy=PrivacyConfig(enabled=enabled, epsilon=2.0, **privacy),
    )


PLANS = [plan_of(), plan_of(prior="private", align_share=0.4), plan_of(enabled=False)]


def orders_of(plan: RunPlan, run: str = "run-1") -> list[Order]:
    stages = ["align"] * plan.align_rounds + ["generate"] * plan.generate_rounds
    return [
        Order(
            run=run,
            number=number,
            stage=stage,
            turn=number - (plan.align_rounds if stage == "generate" else 0),
            plan=plan,
            weights={},
        )
        for number, stage in enumerate(stages, start=1)
    ]


@pytest.mark.parametrize("plan", PLANS[:2], ids=["frozen", "private"])
def test_a_round_and_what_is_ahead_of_it_are_the_rest_of_the_run(plan):
    asked = [
        accountable.ask(one, BUNDLE, 1, SitePrivacy(epsilon=8.0))
        for one in orders_of(plan)
    ]
    assert merged(asked[0].more) == merged(PrivacyPlan.of(plan).whole())
    for here, following in pairwise(asked):
        assert Counter(here.ahead) == Counter(following.more)
    assert asked[-1].ahead == ()


@pytest.mark.parametrize("seed", range(5))
def test_a_dry_run_and_the_ledger_never_disagree(seed, tmp_path):
    """Any plan, limit, history and round: the same epsilon, or the same refusal."""
    draw = random.Random(seed)  # noqa: S311 - cases, no secret
    limit = SitePrivacy(epsilon=draw.choice([0.0, 1.9, 2.0, 2.5]))
    for number in range(2):
        plan = draw.choice(PLANS)
        orders = orders_of(plan, run=f"run-{number}")[: draw.randint(1, 6)]
        if draw.random() < 0.3:
            orders.append(orders[-1])  # the very same again
        if draw.random() < 0.3:  # in another plan: booked otherwise
            other = dataclasses.replace(plan, seed=plan.seed + 1)
            orders.append(dataclasses.replace(orders[-1], plan=other))
        for order in orders:
            members = dict(UNITS)
            if draw.random() < 0.1:
                members["patient-new"] = [f"image-{draw.random()}"]
            shown = outcome(rehearsed, tmp_path, order, members, limit)
            booked = outcome(trained, tmp_path, order, members, limit)
            assert shown == booked


def rehearsed(folder, order, members, limit):
    ledger = Ledger.at_hand(folder, "site-a")
    before = sorted(path.read_bytes() for path in folder.iterdir())
    try:
        return accountable.rehearse(ledger, order, BUNDLE, members, "patient", limit)
    finally:
        assert sorted(path.read_bytes() for path in folder.iterdir()) == before


def trained(folder, order, members, limit):
    ledger = Ledger.at(folder, "site-a")
    accountable.book(ledger, order, BUNDLE, members, "patient", limit)
    if not order.plan.privacy.enabled:
        return 0.0
    return ledger.spent(delta=order.plan.privacy.delta).epsilon


def outcome(attempt, *given):
    try:
        return attempt(*given)
    except VGMedGenError as error:
        return error.code, str(error)
