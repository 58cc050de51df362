"""A server that wants more than it may: every attack ends in a code, and nothing else."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord
from flwr.supercore.task_identity import TaskIdentity

import client.app
from client.approvals import Approvals
from tests.federation.toys import (
    ToySite,
    asking,
    config,
    prepare,
    raw,
    rewritten,
    signed,
    toys,
)
from vgmedgen.errors import TrainingError
from vgmedgen.exchange.wire import Kind
from vgmedgen.ranges import digest_of
from vgmedgen.siteconfig import Policy
from vgmedgen.trust.journal import Journal
from vgmedgen.trust.signing import SigningKey

KEY, STRANGER = SigningKey.make(), SigningKey.make()
LONGEST = 400  # bytes of an error reply: a code and Flower's framing


@pytest.fixture(autouse=True)
def _server(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def launch(tmp_path):
    asked = config(align_rounds=2, generate_rounds=3)
    return prepare(tmp_path / "run", toys(), asked, key=KEY)


class Hospital:
    """A site that trusts one coordinator, and what came of every message to it."""

    def __init__(self, **rules):
        known = Policy(coordinators=[KEY.public], runs=["toy-*"])
        self.site = ToySite("alpha", policy=replace(known, **rules))
        self._app = client.app.build(lambda context: self.site)

    def ask(self, message):
        return self._app(message, None)

    def answered(self, message):
        reply = self.ask(message)
        assert not reply.has_error(), reply.error
        return reply

    def refuses(self, message, code):
        """Nothing trains, nothing but the code leaves, and the audit log says so."""
        site = self.site
        before = len(site.orders), len(site.releases), len(site.rehearsed)
        reply = self.ask(message)
        assert reply.has_error()
        assert reply.error == Error(code=100, reason=code)
        assert not reply.has_content()
        sent = raw(reply)
        assert code.encode() in sent
        assert len(sent) < LONGEST
        assert site.name.encode() not in sent
        assert (len(site.orders), len(site.releases), len(site.rehearsed)) == before
        journal = Journal(site.folder / "audit.jsonl")
        assert journal.verify().count == len(journal.entries())
        arrived, left = journal.entries()[-2:]
        assert (arrived["event"], left["event"]) == ("in", "out")
        assert (left["decision"], left["code"]) == ("refused", code)
        return left


def _word(key=KEY, **words):
    return lambda message: rewritten(message, key, **words)


def _plan(key=KEY, **values):
    """Another plan, whose digest is right whatever it says."""

    def how(message):
        told = json.loads(message.content["order"]["plan"])
        for name, value in values.items():
            section, _, field = name.partition("__")
            if field:
                told[section][field] = value
            else:
                told[section] = value
        words = {"plan": json.dumps(told), "plan-digest": digest_of(told)}
        return rewritten(message, key, **words)

    return how


def _plan_alone(message):
    told = json.loads(message.content["order"]["plan"])
    return rewritten(message, None, plan=json.dumps({**told, "seed": 99}))


def _weights(change):
    def how(message):
        record = message.content["weights"]
        message.content["weights"] = ArrayRecord(change(dict(record)))
        return message

    return how


def _values(change):
    def how(arrays):
        flat = arrays["mapper"].numpy().copy()
        return {**arrays, "mapper": Array(change(flat))}

    return _weights(how)


def _set(value):
    def change(flat):
        flat[3] = value
        return flat

    return _values(change)


def _without_weights(message):
    del message.content["weights"]
    return message


def _more(name, record):
    def how(message):
        message.content[name] = record
        return message

    return how


def _kind(told):
    def how(message):
        message.metadata.message_type = told
        return message

    return how


def _rogue(message):
    words = {**message.content["order"], "signature": "0" * 128}
    message.content["order"] = ConfigRecord(words)
    return message


def _of_another_run(message):
    words = dict(message.content["order"])
    other = rewritten(message, KEY, run="toy-2").content["order"]["signature"]
    message.content["order"] = ConfigRecord({**words, "signature": other})
    return message


ATTACKS = {
    "another base": ("VG15", _word(base="0" * 64)),
    "another base, unsigned": ("VG70", _word(None, base="0" * 64)),
    "another schema": ("VG30", _word(exchange="0" * 64)),
    "another plan digest": ("VG30", _word(**{"plan-digest": "0" * 64})),
    "another protocol": ("VG30", _word(protocol="1")),
    "a word too many": ("VG30", _word(upload="everything")),
    "a word without form": ("VG30", _word(None, stage="upload")),
    "a key that no plan has": ("VG10", _plan(upload=True)),
    "a key that no part of a plan has": ("VG10", _plan(align__upload=True)),
    "a plan that is no plan": ("VG10", _word(plan="{]}")),
    "a learning rate that is not one": ("VG10", _plan(align__mapper_rate=float("nan"))),
    "an absurd learning rate": ("VG40", _plan(generate__learning_rate=1e6)),
    "an absurd number of steps": ("VG40", _plan(align__mapper_steps=10**12)),
    "an absurd number of rounds": ("VG40", _plan(generate_rounds=9_999)),
    "nobody's run": ("VG40", _word(None, coordinator="", signature="")),
    "a stranger's run": ("VG40", _word(STRANGER)),
    "a stranger's signature": (
        "VG70",
        lambda m: rewritten(rewritten(m, STRANGER), coordinator=KEY.public),
    ),
    "no signature": ("VG70", _word(None, signature="")),
    "a made-up signature": ("VG70", _rogue),
    "another run's signature": ("VG70", _of_another_run),
    "a changed plan, signed before": ("VG70", _plan(None, seed=99)),
    "a changed plan under the old digest": ("VG30", _plan_alone),
    "a run that is not allowed": ("VG40", _word(run="other-1")),
    "a run that is no file name": ("VG30", _word(run="toy-..")),
    "tensors of another group": (
        "VG30",
        _weights(lambda a: {"mapper": a["mapper"], "visual_prior": a["lora"]}),
    ),
    "tensors too many": ("VG30", _weights(lambda a: {**a, "prior": a["lora"]})),
    "tensors missing": ("VG30", _weights(lambda a: {"mapper": a["mapper"]})),
    "no tensors": ("VG30", _without_weights),
    "a shorter tensor": ("VG30", _values(lambda flat: flat[:-1])),
    "another shape": ("VG30", _values(lambda flat: flat.reshape(-1, 1))),
    "another type": ("VG30", _values(lambda flat: flat.astype(np.float32))),
    "not a number": ("VG30", _set(np.nan)),
    "infinity": ("VG30", _set(-np.inf)),
    "a huge value": ("VG30", _set(6e4)),
    "a record too many": ("VG30", _more("extra", ConfigRecord({"x": "y"}))),
    "numbers": ("VG30", _more("numbers", MetricRecord({"x": 1}))),
    "a query that there is not": ("VG30", _kind("query.patients")),
    "a training that there is not": ("VG30", _kind("train.everything")),
    "Flower's own query": ("VG30", _kind("query")),
    "Flower's old kind": ("VG30", _kind("get_parameters")),
    "Flower's reconnect": ("VG30", _kind("reconnect")),
    "round 0": ("VG30", _word(round="0")),
    "a round after the last": ("VG30", _word(round="6", stage="generate", turn="4")),
    "another stage": ("VG30", _word(stage="generate")),
    "another turn": ("VG30", _word(turn="2")),
}


ON_SIGNATURES = {
    "another base, unsigned",
    "nobody's run",
    "a stranger's run",
    "a stranger's signature",
    "no signature",
    "a made-up signature",
    "another run's signature",
    "a changed plan, signed before",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_ends_in_a_code_and_the_run_goes_on_without_it(launch, name):
    """Also where the attacker holds the coordinator's signing key."""
    code, attack = ATTACKS[name]
    hospital = Hospital()
    message = attack(asking(launch, Kind.TRAIN))
    if name not in ON_SIGNATURES:
        message = signed(message, KEY)
    hospital.refuses(message, code)
    hospital.answered(asking(launch, Kind.TRAIN))
    assert [order.number for order in hospital.site.orders] == [1]


IN_WORDS = [
    name
    for name, (_, attack) in ATTACKS.items()
    if attack.__qualname__.startswith(("_word", "_plan", "_rogue", "_of_another"))
    and not any(word in name for word in ("round 0", "after the last", "stage", "turn"))
    and name not in ("another base", "another schema", "a word without form")
]


@pytest.mark.parametrize("name", IN_WORDS)
def test_a_hello_is_no_way_in_either(launch, name):
    code, attack = ATTACKS[name]
    message = attack(asking(launch, Kind.HELLO))
    if name not in ON_SIGNATURES:
        message = signed(message, KEY)
    Hospital().refuses(message, code)


@pytest.mark.parametrize(("number", "kind"), [(1, Kind.EVALUATE), (5, Kind.INSTALL)])
@pytest.mark.parametrize("name", ["another base", "a huge value", "a stranger's run"])
def test_nor_is_another_order(launch, name, number, kind):
    code, attack = ATTACKS[name]
    message = attack(asking(launch, kind, number))
    if name not in ON_SIGNATURES:
        message = signed(message, KEY)
    Hospital().refuses(message, code)


@pytest.mark.parametrize(("number", "kind"), [(1, Kind.TRAIN), (5, Kind.INSTALL)])
def test_who_holds_the_server_but_not_the_key_can_change_nothing(launch, number, kind):
    """Neither the weights that a site trains on, nor the round, nor a release."""
    hospital = Hospital()
    changes = [
        _values(lambda flat: flat * np.float16(0.5)),
        _word(None, round=str(number + 1)),
        _word(None, turn="2"),
        _word(None, run="toy-2"),
        _word(None, exchange="0" * 64),
    ]
    if kind is Kind.INSTALL:
        changes.append(_word(None, manifest='{"a": 2}'))
    for change in changes:
        hospital.refuses(change(asking(launch, kind, number)), "VG70")
    other = asking(launch, Kind.TRAIN if kind is Kind.INSTALL else Kind.EVALUATE, 1)
    borrowed = other.content["order"]["signature"]
    hospital.refuses(
        _word(None, signature=borrowed)(asking(launch, kind, number)), "VG70"
    )
    hospital.answered(asking(launch, kind, number))


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
    assert hospital.ask(asking(launch, Kind.TRAIN)).error == Error(100, "VG42")


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


def test_a_kind_that_cannot_be_served_is_named_as_unknown(launch):
    message = _kind("query.patients_of_ward_7")(asking(launch, Kind.TRAIN))
    hospital = Hospital()
    assert hospital.refuses(message, "VG30")["kind"] == "unknown"
    text = (hospital.site.folder / "audit.jsonl").read_text()
    assert "ward" not in text


def test_what_a_hostile_message_says_does_not_get_into_the_log(launch):
    spoken = "Miller born 1950 <script>"
    hospital = Hospital()
    for word in ("run", "stage", "round", "turn", "coordinator", "base", "plan"):
        message = rewritten(asking(launch, Kind.TRAIN), None, **{word: spoken})
        hospital.refuses(message, "VG30")
    text = (hospital.site.folder / "audit.jsonl").read_text()
    assert "Miller" not in text
    assert "script" not in text


def test_an_old_round_is_not_played_again(launch):
    hospital = Hospital()
    for number in (1, 2, 3):
        hospital.answered(asking(launch, Kind.TRAIN, number))
    for kind in (Kind.TRAIN, Kind.EVALUATE):
        hospital.refuses(asking(launch, kind, 2), "VG45")
    hospital.refuses(asking(launch, Kind.INSTALL, 4), "VG30")
    hospital.answered(asking(launch, Kind.EVALUATE, 3))
    assert len(hospital.site.orders) == 3


def test_a_round_is_not_answered_to_two_orders(launch):
    hospital = Hospital()
    first = hospital.answered(asking(launch, Kind.TRAIN, 2))
    hospital.refuses(asking(launch, Kind.TRAIN, 2, seed=7), "VG45")
    again = hospital.answered(asking(launch, Kind.TRAIN, 2))
    assert dict(again.content) == dict(first.content)
    journal = Journal(hospital.site.folder / "audit.jsonl").entries()
    assert journal[-1]["why"] == "repeated"
    assert "why" not in journal[1]


def test_after_the_release_nothing_trains(launch):
    hospital = Hospital()
    hospital.answered(asking(launch, Kind.TRAIN, 5))
    hospital.answered(asking(launch, Kind.INSTALL, 5))
    hospital.refuses(asking(launch, Kind.TRAIN, 5), "VG45")
    hospital.refuses(asking(launch, Kind.EVALUATE, 5), "VG45")
    hospital.answered(asking(launch, Kind.INSTALL, 5))


def test_a_plan_that_changes_after_the_approval_waits_again(launch):
    hospital = Hospital(approval="required")
    approvals = Approvals(hospital.site.folder)
    for kind in (Kind.HELLO, Kind.TRAIN):
        assert hospital.ask(asking(launch, kind)).error == Error(100, "VG42")
    approvals.approve(approvals.of("toy-1").asks[-1], "A. Officer", datetime.now(UTC))
    hospital.answered(asking(launch, Kind.HELLO))
    hospital.answered(asking(launch, Kind.TRAIN))
    changed = _plan(seed=99, align__mapper_steps=119)
    for kind in (Kind.HELLO, Kind.TRAIN):
        reply = hospital.ask(changed(asking(launch, kind)))
        assert reply.error == Error(100, "VG42")
    assert len(hospital.site.orders) == 1
    held = Journal(hospital.site.folder / "audit.jsonl").entries()[-1]
    assert (held["decision"], held["why"]) == ("held", "waiting")
    asked = approvals.of("toy-1").asks
    assert json.loads(asked[-1].said["plan"])["align"]["mapper_steps"] == 119
    # and what was approved goes on
    hospital.answered(asking(launch, Kind.TRAIN, 2))


def test_a_denied_run_is_refused_and_the_log_tells_it_from_one_that_waits(launch):
    hospital = Hospital()
    hospital.answered(asking(launch, Kind.TRAIN))
    Approvals(hospital.site.folder).deny("toy-1", "A. Officer", datetime.now(UTC))
    assert hospital.refuses(asking(launch, Kind.TRAIN, 2), "VG42")["why"] == "denied"


def test_a_server_that_floods_with_runs_leaves_a_bounded_number_of_files(
    launch, monkeypatch
):
    monkeypatch.setattr("client.approvals.MOST_WAITING", 5)
    hospital = Hospital(approval="required")
    for number in range(20):
        message = rewritten(asking(launch, Kind.HELLO), KEY, run=f"toy-{number}")
        assert hospital.ask(message).error == Error(100, "VG42")
    kept = list((hospital.site.folder / "approvals").glob("*.json"))
    assert len(kept) == 5
