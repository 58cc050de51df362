"""What a run asks is kept for the data officer, and a decision is about exactly that."""

import json
from datetime import UTC, datetime

import pytest

from client import approvals as module
from client.approvals import APPROVED, DENIED, WAITING, Approvals
from client.request import Request
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import ApprovalError, PolicyError, StateError
from vgmedgen.exchange.wire import Kind

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def request(run="demo-1", seed=0, **words):
    plan = RunPlan(seed=seed)
    told = {
        "run": run,
        "plan": plan.to_json(),
        "plan-digest": plan.digest,
        "exchange": "e" * 64,
        "base": "b" * 64,
        "coordinator": "c" * 64,
        **words,
    }
    return Request(kind=Kind.HELLO, words=told, plan=plan)


@pytest.fixture
def approvals(tmp_path):
    return Approvals(tmp_path)


def ask(approvals, asked, *, required=True):
    approvals.check(asked, required=required, now=NOW)


def held(approvals, asked, told="waits"):
    with pytest.raises(ApprovalError, match=told) as caught:
        ask(approvals, asked)
    assert caught.value.code == "VG42"
    assert "\n" not in str(caught.value)


def test_a_run_waits_until_it_is_approved(approvals):
    held(approvals, request())
    held(approvals, request())
    (asked,) = approvals.of("demo-1").asks
    assert approvals.of("demo-1").state == WAITING
    assert asked.said["plan"] == RunPlan().to_json()
    assert asked.words["run"] == "demo-1"
    approvals.approve(asked, "A. Officer", NOW)
    ask(approvals, request())
    assert approvals.of("demo-1").state == APPROVED


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"exchange": "f" * 64},
        {"base": "f" * 64},
        {"coordinator": "f" * 64},
    ],
)
def test_whatever_a_run_changes_waits_anew_and_the_decision_stays_on_file(
    approvals, change
):
    held(approvals, request())
    approvals.approve(approvals.of("demo-1").asks[0], "A. Officer", NOW)
    held(approvals, request(**change), "in a changed form")
    found = approvals.of("demo-1")
    assert found.state == WAITING
    assert len(found.asks) == 2
    assert found.decisions[0]["by"] == "A. Officer"
    ask(approvals, request())  # what was approved is approved


def test_where_no_approval_is_required_nothing_is_kept(approvals):
    ask(approvals, request(), required=False)
    assert approvals.runs() == []
    assert not approvals.folder.exists()


@pytest.mark.parametrize("required", [True, False])
def test_a_denied_run_is_kept_out_whatever_it_asks(approvals, required):
    held(approvals, request())
    approvals.approve(approvals.of("demo-1").asks[0], "A. Officer", NOW)
    approvals.deny("demo-1", "B. Officer", NOW)
    for seed in (0, 1):
        with pytest.raises(PolicyError, match=r"denied by B\. Officer on 2026-11-21"):
            ask(approvals, request(seed=seed), required=required)
    assert approvals.of("demo-1").state == DENIED
    assert len(approvals.of("demo-1").asks) == 1
    ask(approvals, request("another"), required=False)


def test_a_denial_ends_every_approval_before_it(approvals):
    for seed in (0, 1):
        held(approvals, request(seed=seed))
    first, second = approvals.of("demo-1").asks
    approvals.approve(first, "A", NOW)
    approvals.deny("demo-1", "A", NOW)
    approvals.approve(second, "A", NOW)
    ask(approvals, request(seed=1))
    held(approvals, request(seed=0))
    told = json.loads((approvals.folder / "demo-1.json").read_text())
    assert [one["decision"] for one in told["decisions"]] == [
        "approved",
        "denied",
        "approved",
    ]


def test_a_run_can_be_denied_before_it_asks(approvals):
    approvals.deny("demo-1", "A", NOW)
    with pytest.raises(PolicyError, match="denied") as caught:
        ask(approvals, request())
    assert caught.value.code == "VG40"  # not that of a run that waits
    assert approvals.of("demo-1").asks == ()


def test_a_hostile_server_cannot_fill_the_disk_with_runs(approvals, monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    for number in range(3):
        held(approvals, request(f"run-{number}"))
    held(approvals, request("run-3"), "3 runs wait")
    assert approvals.runs() == ["run-0", "run-1", "run-2"]
    held(approvals, request("run-1", seed=1))  # one that is known may ask for more
    approvals.deny("run-0", "A", NOW)
    held(approvals, request("run-3"))
    assert "run-3" in approvals.runs()


def test_nor_with_changes_of_one_run(approvals, monkeypatch):
    monkeypatch.setattr(module, "MOST_ASKS", 3)
    for seed in range(3):
        held(approvals, request(seed=seed))
    held(approvals, request(seed=3), "asked for 3 different things")
    assert len(approvals.of("demo-1").asks) == 3


def test_a_damaged_file_refuses_the_run(approvals):
    held(approvals, request())
    (approvals.folder / "demo-1.json").write_text("{")
    with pytest.raises(StateError, match="cannot be read"):
        ask(approvals, request())


def test_a_full_disk_refuses_and_leaves_nothing_half_done(approvals, monkeypatch):
    import errno
    import os

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match="No space left"):
        ask(approvals, request())
    assert approvals.runs() == []
    assert not list(approvals.folder.glob("*.part"))
    assert not list(approvals.folder.glob("demo*"))
