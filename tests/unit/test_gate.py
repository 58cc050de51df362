"""The gate: the order of things at a hospital's wall, and what the audit log keeps."""

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from flwr.app import ArrayRecord, Error
from flwr.supercore.task_identity import TaskIdentity

import client.app
from client import gate
from client.runfiles import AUDIT
from tests.answered import ask, code, log_of
from tests.federation.toys import ToySite, asking, config, prepare, raw, toys
from vgmedgen.config.plan import PrivacyConfig
from vgmedgen.errors import (
    BudgetError,
    DataError,
    NotNowError,
    StateError,
    TrainingError,
)
from vgmedgen.exchange.wire import Kind, fingerprint
from vgmedgen.site.config import Policy
from vgmedgen.trust.journal import Journal


@pytest.fixture(autouse=True)
def _server(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def launch(tmp_path):
    return prepare(tmp_path / "run", toys())


def frozen(monkeypatch, *at, day=5):
    """Stop the gate's clock at a moment of the local day, in the past."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, day, *at).astimezone()

    monkeypatch.setattr(gate, "datetime", Stopped)


@pytest.mark.parametrize("kind", Kind)
def test_a_message_and_its_answer_are_in_the_log(launch, kind):
    site = ToySite("alpha")
    before = 0
    if kind is Kind.EVALUATE:  # a loss is told after the round's training only
        assert ask(site, asking(launch, Kind.TRAIN)).has_content()
        before = len(log_of(site))
    message = asking(launch, kind)
    told = fingerprint(message.content)
    reply = ask(site, message)
    arrived, *_, left = log_of(site)[before:]
    assert arrived["event"] == "in"
    assert arrived["digest"] == told
    assert arrived["run"] == "toy-1"
    assert arrived["bytes"] > 100
    assert (left["event"], left["decision"]) == ("out", "sent")
    assert left["digest"] == fingerprint(reply.content)
    assert left["bytes"] > 100
    assert left["kind"] == arrived["kind"] == str(kind)
    number = {Kind.HELLO: None, Kind.INSTALL: launch.config.federation.rounds}
    assert left.get("round") == number.get(kind, 1)


def test_nothing_happens_that_the_log_does_not_hold(launch):
    site = ToySite("alpha")
    (site.folder / AUDIT).mkdir()
    assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG55"
    assert not site.orders


@pytest.mark.parametrize("event", ["in", "out"])
def test_only_a_code_leaves_where_the_log_fails_on_the_way(launch, monkeypatch, event):
    site, add = ToySite("alpha"), Journal.add

    def full(self, what, **facts):
        if what == event:
            raise StateError("cannot write /data/ward-7: No space left on device")
        add(self, what, **facts)

    monkeypatch.setattr(Journal, "add", full)
    reply = ask(site, asking(launch, Kind.TRAIN))
    assert code(reply) == "VG55"
    assert b"ward" not in raw(reply)
    assert len(site.orders) == (event == "out")


def test_a_refusal_that_cannot_be_logged_says_so(launch, monkeypatch):
    site, add = ToySite("alpha", policy=Policy(runs=["no-*"])), Journal.add

    def full(self, what, **facts):
        if what == "out":
            raise StateError("full")
        add(self, what, **facts)

    monkeypatch.setattr(Journal, "add", full)
    assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG55"


def test_an_answer_that_was_not_sent_is_sent_when_it_is_asked_again(
    launch, monkeypatch
):
    site, add = ToySite("alpha"), Journal.add
    message = asking(launch, Kind.TRAIN)
    with monkeypatch.context() as patch:

        def full(self, what, **facts):
            if what == "out":
                raise StateError("full")
            add(self, what, **facts)

        patch.setattr(Journal, "add", full)
        assert code(ask(site, message)) == "VG55"
    assert ask(site, message).has_content()


def test_a_site_that_cannot_be_opened_refuses_and_logs_nothing(launch):
    def broken(context):
        raise KeyError("/data/patient-7")

    reply = client.app.build(broken)(asking(launch, Kind.TRAIN), None)
    assert code(reply) == "VG00"
    assert b"patient" not in raw(reply)


@pytest.mark.parametrize(
    ("error", "told", "why"),
    [
        (DataError("x"), "VG20", "data"),
        (BudgetError("x"), "VG41", "budget"),
        (NotNowError("x"), "VG43", "hours"),
        (NotNowError("x", why="rounds"), "VG43", "rounds"),
        (TrainingError("x"), "VG50", "training"),
        (StateError("x"), "VG55", "state"),
        (ZeroDivisionError("x"), "VG00", "unforeseen"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_log_says_why_in_the_word_of_the_code(launch, error, told, why):
    class Failing(ToySite):
        def train(self, order):
            raise error

    site = Failing("alpha")
    assert code(ask(site, asking(launch, Kind.TRAIN))) == told
    assert log_of(site)[-1]["why"] == why


def test_what_is_not_answered_is_not_kept_as_answered(launch):
    class Tired(ToySite):
        awake = False

        def train(self, order):
            if not self.awake:
                raise TrainingError("loss is nan for /data/patient-7")
            return super().train(order)

    site = Tired("alpha")
    assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG50"
    assert log_of(site)[-1]["why"] == "training"
    site.awake = True
    # another order for the round is a second try of a server's, the same one is not
    assert code(ask(site, asking(launch, Kind.TRAIN, seed=7))) == "VG45"
    assert ask(site, asking(launch, Kind.TRAIN)).has_content()


def test_what_a_handler_computes_and_the_guard_stops_is_not_kept_as_answered(launch):
    class Wrong(ToySite):
        def train(self, order):
            outcome = super().train(order)
            return replace(
                outcome, state={n: a * np.nan for n, a in outcome.state.items()}
            )

    site = Wrong("alpha")
    assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG30"
    kept = json.loads((site.folder / "turns" / "toy-1.json").read_text())
    assert kept["orders"]["train"]["answered"] is False


def test_refusals_by_policy_are_one_line_in_the_log_and_faults_keep_their_trace(
    launch, caplog
):
    caplog.set_level(logging.INFO)
    site = ToySite("alpha", policy=Policy(dp="required"))
    assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG40"
    (record,) = [r for r in caplog.records if r.name == "client.gate"]
    assert "policy.dp" in record.getMessage()
    assert record.exc_info is None
    caplog.clear()

    class Careless(ToySite):
        def train(self, order):
            raise ValueError("/data/patient-7")

    assert code(ask(Careless("alpha"), asking(launch, Kind.TRAIN))) == "VG00"
    (record,) = [r for r in caplog.records if r.name == "client.gate"]
    assert "patient" not in record.getMessage()
    assert record.exc_info


def test_no_loss_leaves_where_losses_stay(launch):
    site = ToySite("alpha", policy=Policy(metrics=False))
    reply = ask(site, asking(launch, Kind.TRAIN))
    assert set(reply.content["numbers"]) == {"num-units", "epsilon-spent"}
    assert b"loss" not in raw(reply)
    assert code(ask(site, asking(launch, Kind.EVALUATE))) == "VG40"


def test_hours_are_those_of_the_sites_own_clock(launch, monkeypatch):
    site = ToySite("alpha", policy=Policy(hours="20:00-06:00"))
    frozen(monkeypatch, 12, 0)
    assert ask(site, asking(launch, Kind.HELLO)).has_content()
    assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG43"
    assert log_of(site)[-1]["code"] == "VG43"
    frozen(monkeypatch, 20, 0)
    assert ask(site, asking(launch, Kind.TRAIN)).has_content()


def test_the_days_rounds_are_used_up_and_come_back(launch, monkeypatch):
    site = ToySite("alpha", policy=Policy(rounds_per_day=1))
    frozen(monkeypatch, 23, 59)
    assert ask(site, asking(launch, Kind.TRAIN)).has_content()
    assert ask(site, asking(launch, Kind.TRAIN)).has_content()  # the same again
    assert code(ask(site, asking(launch, Kind.TRAIN, 2))) == "VG43"
    assert ask(site, asking(launch, Kind.EVALUATE)).has_content()
    frozen(monkeypatch, 0, 0, day=6)
    assert ask(site, asking(launch, Kind.TRAIN, 2)).has_content()


def test_a_policy_that_is_tightened_holds_from_the_next_message_on(launch):
    site = ToySite("alpha")
    assert ask(site, asking(launch, Kind.TRAIN)).has_content()
    site.policy = Policy(stages=["align"])
    assert code(ask(site, asking(launch, Kind.TRAIN, 2))) == "VG40"


def test_units_are_counted_only_where_a_limit_asks_for_them(launch):
    class Slow(ToySite):
        @property
        def units(self):
            raise AssertionError("the data were read")

    assert ask(Slow("alpha"), asking(launch, Kind.HELLO)).has_content()
    site = ToySite("alpha", policy=Policy(min_units=11))
    assert code(ask(site, asking(launch, Kind.HELLO))) == "VG40"
    site.policy = Policy(min_units=10)
    assert ask(site, asking(launch, Kind.HELLO)).has_content()


def test_a_message_without_content_is_refused(launch):
    message = asking(launch, Kind.TRAIN)
    message.__dict__["_content"] = None
    message.__dict__["_error"] = Error(code=1, reason="x")
    site = ToySite("alpha")
    assert code(ask(site, message)) == "VG30"
    arrived, left = log_of(site)
    assert "digest" not in arrived
    assert left["code"] == "VG30"


def test_the_log_of_a_private_run_says_what_kind_of_thing_it_refused(tmp_path):
    asked = replace(config(), privacy=PrivacyConfig(enabled=True, epsilon=4.0))
    launch = prepare(tmp_path / "run", toys(), asked)
    site = ToySite("alpha", policy=Policy(dp="refused"))
    assert code(ask(site, asking(launch, Kind.HELLO))) == "VG40"
    assert log_of(site)[-1]["why"] == "policy"


def test_records_that_are_no_words_are_refused_and_logged(launch):
    message = asking(launch, Kind.HELLO)
    message.content["order"] = ArrayRecord()
    site = ToySite("alpha")
    assert code(ask(site, message)) == "VG30"
    assert log_of(site)[0]["kind"] == "query.hello"


def test_an_approval_is_asked_for_in_universal_time(launch):
    site = ToySite("alpha", policy=Policy(approval="required"))
    assert code(ask(site, asking(launch, Kind.HELLO))) == "VG42"
    told = json.loads((site.folder / "approvals" / "toy-1.json").read_text())
    assert datetime.fromisoformat(told["asks"][0]["at"]).tzinfo == UTC
