"""Every limit of a hospital, held against what a run asks."""

import json
from dataclasses import replace
from datetime import UTC, datetime, time

import pytest

from client.policy import History, check, verdicts, within_hours
from client.request import Request
from vgmedgen.config.plan import AlignConfig, GenerateConfig, PrivacyConfig, RunPlan
from vgmedgen.errors import NotNowError, PolicyError
from vgmedgen.exchange.wire import Kind
from vgmedgen.site.config import Policy, SitePrivacy

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PRIVATE = PrivacyConfig(enabled=True, epsilon=4.0, delta=1e-5)
UNITS = 40


def request(kind=Kind.TRAIN, *, plan=None, number=1, stage="align", **words):
    told = {
        "run": "demo-1",
        "exchange": "e" * 64,
        "round": str(number),
        "turn": "1",
        "stage": stage,
        **words,
    }
    if kind is Kind.HELLO:
        told = {name: told[name] for name in ("run", "exchange")}
    return Request(kind=kind, words=told, plan=plan or RunPlan())


def judge(policy, asked, history=None, now=NOON, privacy=None):
    check(policy, privacy or SitePrivacy(), asked, history or History(units=UNITS), now)


def refused(policy, asked, told, **more):
    with pytest.raises(PolicyError, match=told) as caught:
        judge(policy, asked, **more)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", Kind)
def test_a_policy_without_limits_lets_everything_in(kind):
    judge(Policy(), request(kind))


LIMITS = [
    ({"runs": ["pilot-*"]}, {}, "policy.runs"),
    ({"runs": ["DEMO-*"]}, {}, "policy.runs"),  # the case of letters counts
    ({"runs": []}, {}, "policy.runs"),
    ({"stages": []}, {}, "policy.stages"),
    ({"dp": "required"}, {}, "policy.dp"),
    ({"dp": "refused"}, {"privacy": PRIVATE}, "policy.dp"),
    ({"epsilon_per_run": 3.9}, {"privacy": PRIVATE}, "policy.epsilon_per_run"),
    (
        {"epsilon_per_run": 5},
        {"privacy": replace(PRIVATE, delta=1e-4)},
        "policy.epsilon_per_run",
    ),
    ({"min_units": 41}, {}, "policy.min_units"),
    ({"min_units": 41}, {"privacy": PRIVATE}, "policy.min_units"),
    ({"rounds_per_run": 4}, {}, "policy.rounds_per_run"),
    ({"steps_per_round": 159}, {}, "policy.steps_per_round"),
    (
        {"steps_per_round": 119, "stages": ["generate"]},
        {},
        "policy.steps_per_round",
    ),
    ({"learning_rate": 4e-3}, {}, "policy.learning_rate"),
    ({"exchange": "f" * 64}, {}, "policy.exchange"),
]


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(("rules", "asks", "told"), LIMITS)
def test_every_limit_of_a_run_holds_for_every_message_of_it(kind, rules, asks, told):
    stage = "generate" if "stages" in rules else "align"
    asked = request(kind, plan=RunPlan(**asks), stage=stage)
    error = refused(Policy(**rules), asked, told)
    assert error.code == "VG40"


KEPT = [
    ({"runs": ["pilot-*", "demo-[0-9]"]}, {}),
    ({"dp": "required"}, {"privacy": PRIVATE}),
    ({"dp": "refused"}, {}),
    ({"epsilon_per_run": 4.0}, {"privacy": PRIVATE}),
    ({"epsilon_per_run": 0.1}, {}),  # of a run that claims one
    ({"min_units": UNITS}, {}),
    ({"rounds_per_run": 5}, {}),
    ({"steps_per_round": 160}, {}),
    ({"learning_rate": 5e-3}, {}),
    ({"exchange": "e" * 64}, {}),
]


@pytest.mark.parametrize(("rules", "asks"), KEPT)
def test_what_is_just_allowed_is_allowed(rules, asks):
    judge(Policy(**rules), request(plan=RunPlan(**asks)))


def test_under_dp_the_steps_of_a_prior_that_nobody_trains_do_not_count():
    rules = Policy(steps_per_round=120, learning_rate=1e-2)
    align = AlignConfig(prior_steps=9000, prior_rate=9.0)
    judge(rules, request(plan=RunPlan(align=align, privacy=PRIVATE)))
    trained = replace(PRIVATE, prior="private")
    refused(
        rules, request(plan=RunPlan(align=align, privacy=trained)), "steps_per_round"
    )
    refused(rules, request(plan=RunPlan(align=align)), "9120 steps")


@pytest.mark.parametrize(
    "plan",
    [
        RunPlan(align=AlignConfig(prior_rate=0.2)),
        RunPlan(align=AlignConfig(mapper_rate=0.2)),
        RunPlan(generate=GenerateConfig(learning_rate=0.2)),
        RunPlan(align=AlignConfig(mapper_steps=200_000)),
        RunPlan(generate=GenerateConfig(steps=200_000)),
    ],
)
def test_each_training_is_looked_at_by_itself(plan):
    refused(Policy(), request(Kind.HELLO, plan=plan), "learning_rate|steps_per_round")


def test_a_site_of_one_stage_joins_and_leaves_out_the_other_rounds():
    rules = Policy(stages=["align"], learning_rate=2e-3)
    judge(rules, request(Kind.HELLO))
    judge(rules, request(stage="align"))
    for kind in (Kind.TRAIN, Kind.EVALUATE):
        refused(rules, request(kind, stage="generate"), "policy.stages")
    judge(rules, request(Kind.INSTALL, stage="generate"))


def test_no_held_out_loss_is_asked_where_losses_stay():
    rules = Policy(metrics=False)
    judge(rules, request(Kind.TRAIN))
    assert refused(rules, request(Kind.EVALUATE), "policy.metrics").code == "VG40"


def test_hours_hold_for_orders_and_not_for_a_hello():
    rules = Policy(hours="20:00-06:00")
    judge(rules, request(Kind.HELLO))
    for kind in (Kind.TRAIN, Kind.EVALUATE, Kind.INSTALL):
        with pytest.raises(NotNowError, match="work at 12:00") as caught:
            judge(rules, request(kind))
        assert caught.value.code == "VG43"
        judge(rules, request(kind), now=NOON.replace(hour=23))


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("08:00-18:00", ["08:00", "17:59"], ["07:59", "18:00", "00:00"]),
        ("20:00-06:00", ["20:00", "23:59", "00:00", "05:59"], ["06:00", "19:59"]),
        ("00:00-23:59", ["00:00", "23:58"], ["23:59"]),
        ("07:00-07:00", [], ["06:59", "07:00", "07:01"]),
        ("", ["00:00", "12:00"], []),
    ],
)
def test_hours_may_go_past_midnight_and_their_end_is_not_in_them(
    hours, inside, outside
):
    assert all(within_hours(hours, time.fromisoformat(at)) for at in inside)
    assert not any(within_hours(hours, time.fromisoformat(at)) for at in outside)


def test_the_rounds_of_a_day_are_counted_over_all_runs():
    rules = Policy(rounds_per_day=2)
    other = ("other-1", 4)
    judge(rules, request(), history=History(units=UNITS, today=frozenset({other})))
    both = frozenset({other, ("demo-1", 2)})
    with pytest.raises(NotNowError, match=r"3 rounds today.*at most 2"):
        judge(rules, request(), history=History(units=UNITS, today=both))
    # neither what trains nothing counts, nor the same round once more
    judge(rules, request(), history=History(units=UNITS, today=both, repeated=True))
    judge(rules, request(number=2), history=History(units=UNITS, today=both))
    for kind in (Kind.HELLO, Kind.EVALUATE, Kind.INSTALL):
        judge(rules, request(kind), history=History(units=UNITS, today=both))


def test_every_rule_tells_what_is_asked_and_what_is_allowed():
    found = verdicts(
        Policy(steps_per_round=10, dp="required"),
        SitePrivacy(),
        request(Kind.HELLO),
        UNITS,
    )
    broken = {one.rule for one in found if not one.kept}
    assert broken == {"steps_per_round", "dp"}
    assert all(one.asked and one.allowed for one in found)
    assert json.dumps([vars(one) for one in found])
