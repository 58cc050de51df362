"""A server that wants more than it may: every attack ends in a code, and nothing else."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from flwr.app import Error

from client.approvals import Approvals
from tests.federation.attacks import (
    ATTACKS,
    KEY,
    ON_SIGNATURES,
    STRANGER,
    Hospital,
    _kind,
    _plan,
    _values,
    _word,
    announced,
)
from tests.federation.toys import (
    asking,
    release_signature,
    rewritten,
    signed,
)
from vgmedgen.errors import ReleaseError
from vgmedgen.exchange.wire import Kind
from vgmedgen.trust.journal import Journal


@pytest.fixture
def launch(tmp_path, monkeypatch):
    return announced(tmp_path, monkeypatch)


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


RELEASE = {"a": 1}  # what `asking` has installed


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("VG40", ""),
        ("VG70", release_signature(STRANGER, RELEASE)),
        ("VG60", release_signature(KEY, {"a": 2})),
        ("VG60", '{"release": "nothing"}'),
        ("VG60", release_signature(KEY, RELEASE).replace(", ", ",")),
        ("VG70", release_signature(KEY, RELEASE).replace("2026-11", "2027-11")),
        ("VG30", "signed"),
        ("VG30", "{" + " " * 600 + "}"),
    ],
    ids=[
        *("none", "a stranger's", "of another release", "no signature"),
        *("written otherwise", "at another date", "no form", "too long"),
    ],
)
def test_a_release_without_its_own_signature_is_refused_in_a_signed_message(
    launch, code, said
):
    """Whoever has the key sign an order has not yet had a release signed."""
    hospital = Hospital()
    change = _word(KEY, **{"release-signature": said})
    left = hospital.refuses(change(asking(launch, Kind.INSTALL)), code)
    assert left["kind"] == "query.install"
    hospital.answered(asking(launch, Kind.INSTALL))
    ((_, _, signature),) = hospital.site.releases
    assert signature.coordinator == KEY.public


def test_an_installed_release_is_in_the_audit_log_with_its_digest(launch):
    hospital = Hospital()
    reply = hospital.answered(asking(launch, Kind.INSTALL))
    arrived, installed, left = Journal(hospital.site.folder / "audit.jsonl").entries()
    assert (arrived["event"], left["event"]) == ("in", "out")
    assert (installed["event"], installed["decision"]) == ("install", "accepted")
    assert installed["digest"] == reply.content["origin"]["release"]
    assert installed["coordinator"] == KEY.public


def test_a_site_whose_release_is_refused_says_so_in_its_log(launch):
    hospital = Hospital()

    def damaged(*_):
        raise ReleaseError("files differ in /srv/ward-7")

    hospital.site.install = damaged
    left = hospital.refuses(asking(launch, Kind.INSTALL), "VG60")
    assert (left["decision"], left["why"]) == ("refused", "release")
    del hospital.site.install
    hospital.answered(asking(launch, Kind.INSTALL))  # the right one may follow


def test_a_manifest_that_is_no_json_is_refused_by_a_code_of_its_own(launch):
    hospital = Hospital()
    hospital.refuses(_word(manifest="{]}")(asking(launch, Kind.INSTALL)), "VG60")


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


def test_no_loss_is_told_of_a_round_that_was_not_trained(launch):
    hospital = Hospital()
    hospital.refuses(asking(launch, Kind.EVALUATE, 1), "VG45")
    hospital.answered(asking(launch, Kind.TRAIN, 1))
    hospital.refuses(asking(launch, Kind.EVALUATE, 2), "VG45")
    hospital.answered(asking(launch, Kind.EVALUATE, 1))


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
    assert hospital.refuses(asking(launch, Kind.TRAIN, 2), "VG40")["why"] == "denied"


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
