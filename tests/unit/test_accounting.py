"""Epsilon and noise against an accountant of another house, and what must never happen."""

import math
from itertools import pairwise, product

import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

from vgmedgen.config.plan import GenerateConfig, PrivacyConfig, RunPlan
from vgmedgen.errors import ConfigError
from vgmedgen.privacy.accountant import Mechanism, bound, merged, spent
from vgmedgen.privacy.ledger import Entry, Ledger
from vgmedgen.privacy.plan import PrivacyPlan, calibrate

DELTA = 1e-5
RELATIONS = (
    NeighboringRelation.REPLACE_SPECIAL,  # zeroed out: what we claim
    NeighboringRelation.ADD_OR_REMOVE_ONE,  # what Opacus computes
)
GRID = [
    # units, expected batch, rounds, epsilon; an epoch's worth of steps in a round
    (200, 50, 5, 3.0),
    (200, 50, 30, 8.0),
    (647, 64, 10, 1.0),
    (2000, 64, 3, 8.0),
]
WIDE = list(product((200, 647, 2000), (32, 64), (3, 10, 30), (1.0, 3.0, 8.0)))


def google(noise: float, rate: float, steps: int, relation=RELATIONS[0]) -> float:
    """Epsilon by dp-accounting's privacy loss distributions."""
    accountant = PLDAccountant(relation)
    event = PoissonSampledDpEvent(rate, GaussianDpEvent(noise))
    accountant.compose(event, steps)
    return float(accountant.get_epsilon(DELTA))


def one(noise: float = 2.0, rate: float = 0.25, steps: int = 50) -> Mechanism:
    return Mechanism(noise=noise, rate=rate, steps=steps)


def agrees(units: int, batch: int, rounds: int, epsilon: float) -> None:
    rate = batch / units
    steps = rounds * max(1, round(1 / rate))
    noise = calibrate(epsilon=epsilon, delta=DELTA, rate=rate, steps=steps)
    found = spent([one(noise, rate, steps)], DELTA)
    assert found.accountant == "PRV"
    assert found.epsilon <= epsilon
    for relation in RELATIONS:
        theirs = google(noise, rate, steps, relation)
        assert found.epsilon == pytest.approx(theirs, rel=0.01)
        assert theirs == pytest.approx(epsilon, rel=0.01)
        # a hair less noise would break the claim in their eyes as well
        assert google(noise * 0.99, rate, steps, relation) > epsilon


@pytest.mark.parametrize("case", GRID, ids=str)
def test_calibration_and_composition_agree_with_dp_accounting(case):
    agrees(*case)


@pytest.mark.slow
@pytest.mark.parametrize("case", WIDE, ids=str)
def test_they_agree_over_a_wide_grid(case):
    agrees(*case)


def test_several_mechanisms_together_agree_with_dp_accounting():
    parts = [one(4.0, 0.25, 60), one(6.0, 0.1, 100)]
    accountant = PLDAccountant(RELATIONS[0])
    for part in parts:
        event = PoissonSampledDpEvent(part.rate, GaussianDpEvent(part.noise))
        accountant.compose(event, part.steps)
    theirs = accountant.get_epsilon(DELTA)
    assert spent(parts, DELTA).epsilon == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize(
    "line",
    [
        [(5.0, 0.25, steps, DELTA) for steps in (1, 10, 50, 250)],
        [(5.0, rate, 50, DELTA) for rate in (0.01, 0.1, 0.5, 1.0)],
        [(noise, 0.25, 50, DELTA) for noise in (20.0, 8.0, 4.0, 2.0)],
        [(5.0, 0.25, 50, delta) for delta in (1e-3, 1e-5, 1e-7)],
    ],
    ids=["steps", "rate", "noise", "delta"],
)
def test_epsilon_rises_with_every_argument_that_costs(line):
    found = [
        spent([one(noise, rate, steps)], delta).epsilon
        for noise, rate, steps, delta in line
    ]
    assert all(less < more for less, more in pairwise(found))


@pytest.mark.parametrize(
    "line",
    [
        [{"epsilon": epsilon} for epsilon in (8.0, 4.0, 1.0)],
        [{"steps": steps} for steps in (10, 40, 160)],
        [{"rate": rate} for rate in (0.1, 0.3, 1.0)],
        [{"delta": delta} for delta in (1e-3, 1e-5, 1e-7)],
    ],
    ids=["epsilon", "steps", "rate", "delta"],
)
def test_noise_rises_with_every_argument_that_asks_for_more(line):
    base = {"epsilon": 3.0, "delta": DELTA, "rate": 0.25, "steps": 40}
    found = [calibrate(**(base | changes)) for changes in line]
    assert all(less < more for less, more in pairwise(found))


def test_five_rounds_cost_more_than_one_and_less_than_five_times_one():
    alone = spent([one()], DELTA).epsilon
    five = spent([one()] * 5, DELTA).epsilon
    assert alone < five < 5 * alone
    assert five == spent([one(steps=250)], DELTA).epsilon


def test_the_order_of_rounds_does_not_matter():
    parts = [one(4.0), one(6.0), one(4.0, 0.1)]
    assert spent(parts, DELTA) == spent(parts[::-1], DELTA)
    assert merged([one(), one()]) == [one(steps=100)]


@pytest.mark.parametrize(
    "parts",
    [
        [one(1.0, 0.02, 300)],
        [one(8.0, 0.25, 100)],
        [one(3.0, 1.0, 10)],
        [one(4.0, 0.25, 20), one(6.0, 0.25, 20)],
        [one(60.0, 0.1, 1)],
    ],
    ids=str,
)
def test_the_quick_bound_is_never_below_the_exact_one(parts):
    assert bound(parts, DELTA) >= spent(parts, DELTA).epsilon


def test_many_different_mechanisms_fall_back_to_the_quick_bound():
    parts = [one(5.0 + k / 100, 0.1, 5) for k in range(30)]
    found = spent(parts, DELTA)
    assert found.accountant == "RDP"
    assert found.epsilon >= google(5.3, 0.1, 150)


def test_nothing_costs_nothing():
    assert (spent([], DELTA).epsilon, spent([], DELTA).accountant) == (0.0, "none")


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["epsilon", "delta", "rate", "steps"])
def test_calibration_refuses_what_is_no_number_above_0(name, bad):
    good = {"epsilon": 3.0, "delta": DELTA, "rate": 0.25, "steps": 40}
    with pytest.raises(ConfigError, match=name):
        calibrate(**(good | {name: bad}))


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["noise", "rate", "steps"])
def test_a_mechanism_refuses_what_is_no_number_above_0(name, bad):
    with pytest.raises(ConfigError, match=name):
        one(**{name: bad})


def test_a_rate_above_1_is_refused_everywhere():
    for ask in (
        lambda: one(rate=1.01),
        lambda: calibrate(epsilon=3.0, delta=DELTA, rate=1.01, steps=40),
        lambda: PrivacyConfig(rate=1.01),
    ):
        with pytest.raises(ConfigError, match="rate"):
            ask()


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "name", ["epsilon", "delta", "rate", "mapper_clip", "generate_clip", "prior_clip"]
)
def test_a_privacy_config_refuses_what_is_no_number_above_0(name, bad):
    with pytest.raises(ConfigError, match=name):
        PrivacyConfig(**{name: bad})


def test_a_restart_in_the_middle_of_a_run_changes_nothing(tmp_path):
    """A run booked round by round, the ledger reopened each time, costs its claim."""
    plan = RunPlan(
        align_rounds=1,
        generate_rounds=3,
        generate=GenerateConfig(steps=20),
        privacy=PrivacyConfig(enabled=True, epsilon=3.0, delta=DELTA),
    )
    private = PrivacyPlan.of(plan)
    rounds = [(1, "align"), *((turn, "generate") for turn in (2, 3, 4))]

    def entry(number: int, stage: str) -> Entry:
        return Entry(
            cohort=1,
            run="r",
            round=number,
            stage=stage,
            order="o",
            plan=plan.digest,
            base="b",
            mechanisms=private.round(stage),
        )

    Ledger.create(tmp_path, "site-a").cohort_for({"a": ["1"], "b": ["2"]}, "patient")
    for number, stage in rounds:
        ahead = [m for _, later in rounds[number:] for m in private.round(later)]
        for _ in range(2):  # killed after booking, and started again
            ledger = Ledger.open(tmp_path, "site-a")
            ledger.book(entry(number, stage), limit=3.0, delta=DELTA, ahead=ahead)
    reopened = Ledger.open(tmp_path, "site-a")
    assert [row.kind for row in reopened.rows()].count("stage") == len(rounds)
    assert reopened.spent(delta=DELTA) == spent(private.whole(), DELTA)
    assert reopened.spent(delta=DELTA).epsilon <= 3.0
