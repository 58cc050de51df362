"""Who holds the signing key may ask for much, and still gets no more than is allowed."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from flwr.app import Error

from client.approvals import Approvals
from tests.federation.attacks import (
    Hospital,
    _plan,
    _word,
    announced,
)
from tests.federation.toys import (
    asking,
)
from vgmedgen.errors import TrainingError
from vgmedgen.exchange.wire import Kind


@pytest.fixture
def launch(tmp_path, monkeypatch):
    return announced(tmp_path, monkeypatch)


def test_a_plan_that_means_different_things_to_different_readers_is_refused(launch):
    hospital = Hospital()
    for text in ("${oc.env:HOME,true}", "$", "${align.common_start}"):
        for attack in (_plan(privacy__unit=text), _plan(merge=text)):
            hospital.refuses(attack(asking(launch, Kind.TRAIN)), "VG10")
    plan = asking(launch, Kind.TRAIN).content["order"]["plan"]
    spaced = _word(plan=plan.replace(": ", " :  ", 1))
    hospital.refuses(spaced(asking(launch, Kind.TRAIN)), "VG30")
    deep = '{"align":' * 900 + "1" + "}" * 900
    hospital.refuses(_word(plan=deep[:7999] + "}")(asking(launch, Kind.TRAIN)), "VG10")
    hospital.refuses(
        _word(plan='{"seed": ' + "9" * 6000 + "}")(asking(launch, Kind.TRAIN)), "VG10"
    )


def test_sizes_have_an_end_whoever_asks(launch):
    hospital = Hospital()
    for attack in (
        _plan(generate__rank=1025),
        _plan(generate__batch=10**6),
        _plan(privacy__draws=10**6),
        _plan(generate__colour_weight=float("inf")),
        _plan(seed=10**300),
        _plan(privacy__enabled=True, privacy__epsilon=0.001),
        _plan(privacy__enabled=True, generate_rounds=9_999),
    ):
        hospital.refuses(attack(asking(launch, Kind.TRAIN)), "VG10")


def test_a_round_that_failed_is_not_tried_with_other_weights(launch, monkeypatch):
    hospital = Hospital()

    def fail(order):
        hospital.site.orders.append(order)
        raise TrainingError("a loss that is not finite")

    monkeypatch.setattr(hospital.site, "train", fail)
    assert hospital.ask(asking(launch, Kind.TRAIN)).error == Error(100, "VG50")
    for seed in range(1, 6):
        hospital.refuses(asking(launch, Kind.TRAIN, seed=seed), "VG45")
    # the very same order may come again: the hospital may have mended something
    assert hospital.ask(asking(launch, Kind.TRAIN)).error == Error(100, "VG50")
    assert len(hospital.site.orders) == 2


def test_a_dry_run_does_not_rehearse_a_round_with_other_weights(launch):
    hospital = Hospital(dry_run=True)
    assert hospital.ask(asking(launch, Kind.TRAIN)).error == Error(100, "VG44")
    for seed in range(1, 4):
        hospital.refuses(asking(launch, Kind.TRAIN, seed=seed), "VG45")
    assert len(hospital.site.rehearsed) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [({"dry_run": True}, "VG44"), ({"runs": []}, "VG40"), ({"metrics": False}, None)],
)
def test_what_was_forbidden_while_a_round_trained_does_not_leave(
    launch, monkeypatch, change, code
):
    hospital = Hospital()
    train = hospital.site.train

    def slowly(order):
        outcome = train(order)
        hospital.site.policy = replace(hospital.site.policy, **change)
        return outcome

    monkeypatch.setattr(hospital.site, "train", slowly)
    reply = hospital.ask(asking(launch, Kind.TRAIN))
    if code is None:
        assert "loss-sum" not in reply.content["numbers"]
    else:
        assert reply.error == Error(100, code)


def test_a_run_that_was_denied_while_it_trained_gets_no_answer(launch, monkeypatch):
    hospital = Hospital()
    train = hospital.site.train

    def slowly(order):
        Approvals(hospital.site.folder).deny("toy-1", "A. Officer", datetime.now(UTC))
        return train(order)

    monkeypatch.setattr(hospital.site, "train", slowly)
    assert hospital.ask(asking(launch, Kind.TRAIN)).error == Error(100, "VG40")


def test_what_was_refused_is_not_looked_into(launch, monkeypatch):
    """Its plan may be of any size, and anybody's."""
    from client.site import look_of

    hospital = Hospital()
    monkeypatch.setattr("client.site.plan_of", lambda words: pytest.fail("read"))
    monkeypatch.setattr(hospital.site, "schema", lambda plan: pytest.fail("built"))
    message = _word(None, coordinator="", signature="")(asking(launch, Kind.TRAIN))
    reply = hospital.ask(message)
    reply.metadata.__dict__["_message_id"] = "m2"
    look_of(hospital.site)(message, reply)


def test_a_batch_that_shows_single_patients_is_refused(launch):
    hospital = Hospital(min_batch=8)
    hospital.refuses(_plan(align__batch=1)(asking(launch, Kind.TRAIN)), "VG40")
    hospital.refuses(_plan(generate__batch=7)(asking(launch, Kind.HELLO)), "VG40")
    hospital.answered(asking(launch, Kind.TRAIN))
