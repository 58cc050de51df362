"""A run only goes forward, and a round is worked on once."""

import json
import os
from datetime import UTC, date, datetime, timedelta

import pytest

from client.request import Request
from client.runfiles import RunFiles
from client.turns import Turns
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import ExchangeError, ReplayError, StateError
from vgmedgen.exchange.wire import Kind

TODAY = date(2026, 11, 21)
NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def order(number, digest="d", kind=Kind.TRAIN, run="demo-1"):
    words = {"run": run, "round": str(number), "turn": "1", "stage": "align"}
    return Request(kind=kind, words=words, plan=RunPlan(), digest=f"{digest}{number}")


@pytest.fixture
def turns(tmp_path):
    return Turns(tmp_path)


def answer(turns, *requests, today=TODAY):
    for request in requests:
        turns.check(request)
        turns.begin(request, today)
        turns.record(request)


def test_a_run_goes_forward_and_may_leave_out_rounds(turns):
    answer(turns, order(1), order(2), order(5))
    assert not turns.check(order(6))


def test_a_round_that_was_left_behind_is_refused(turns):
    answer(turns, order(1), order(3))
    for kind in (Kind.TRAIN, Kind.EVALUATE, Kind.INSTALL):
        with pytest.raises(ReplayError, match="begun round 3") as caught:
            turns.check(order(2, kind=kind))
        assert caught.value.code == "VG45"
    assert not turns.check(order(2, run="another"))


def test_the_very_same_order_is_answered_again_and_no_other(turns):
    answer(turns, order(2))
    assert turns.check(order(2))
    assert turns.repeats(order(2))
    assert not turns.repeats(order(2, "other"))
    with pytest.raises(ReplayError, match="otherwise than before"):
        turns.check(order(2, "other"))


def test_each_kind_has_one_order_in_a_round(turns):
    answer(turns, order(2), order(2, "e", Kind.EVALUATE))
    assert turns.check(order(2))
    assert turns.check(order(2, "e", Kind.EVALUATE))
    with pytest.raises(ReplayError):
        turns.check(order(2, "f", Kind.EVALUATE))


def test_no_loss_is_told_of_a_round_that_was_not_trained_here(turns):
    answer(turns, order(1))
    for missed in (order(2, "e", Kind.EVALUATE), order(1, "e", Kind.EVALUATE, "new")):
        with pytest.raises(ReplayError, match="trained nothing"):
            turns.check(missed)
        with pytest.raises(ReplayError):
            turns.begin(missed, TODAY)
    answer(turns, order(2), order(2, "e", Kind.EVALUATE))


def test_after_the_release_nothing_trains_and_the_release_may_come_again(turns):
    answer(turns, order(3), order(3, "i", Kind.INSTALL))
    assert turns.ended("demo-1")
    for kind, number in ((Kind.TRAIN, 4), (Kind.TRAIN, 3), (Kind.EVALUATE, 4)):
        with pytest.raises(ReplayError, match="installed its release"):
            turns.check(order(number, kind=kind))
    assert turns.check(order(3, "i", Kind.INSTALL))
    with pytest.raises(ReplayError):
        turns.check(order(3, "j", Kind.INSTALL))


def test_of_two_orders_at_once_only_one_is_worked_on(turns):
    turns.check(order(1))
    turns.check(order(1, "other"))
    turns.begin(order(1), TODAY)
    with pytest.raises(ReplayError):
        turns.begin(order(1, "other"), TODAY)
    with pytest.raises(ReplayError):
        turns.record(order(1, "other"))
    assert not turns.check(order(1))
    turns.record(order(1))
    assert turns.check(order(1))


def test_a_round_that_failed_is_used_up_by_its_order(turns):
    turns.begin(order(2), TODAY)
    assert not turns.repeats(order(2))
    with pytest.raises(ReplayError):
        turns.check(order(2, "other"))
    with pytest.raises(ReplayError):
        turns.check(order(1))
    assert not turns.check(order(2))  # the hospital may have mended something
    assert turns.of_day(NOON) == {("demo-1", 2)}


def test_a_release_that_did_not_install_is_not_the_end_of_a_run(turns):
    turns.begin(order(3, "i", Kind.INSTALL), TODAY)
    assert not turns.ended("demo-1")
    assert not turns.check(order(3, "j", Kind.INSTALL))


def test_the_rounds_of_today_are_those_that_trained_today(turns, tmp_path):
    yesterday = TODAY - timedelta(days=1)
    answer(turns, order(1), order(2), today=yesterday)
    answer(turns, order(2), order(3), order(3, "e", Kind.EVALUATE))
    answer(turns, order(1, run="another"))
    answer(turns, order(9, run="old"), today=yesterday)
    turns.begin(order(4, run="shown"), TODAY)
    assert turns.of_day(NOON) == {("demo-1", 3), ("another", 1), ("shown", 4)}
    assert turns.rounds() == {"another": 1, "demo-1": 3, "old": 1, "shown": 1}
    # a file that was last written on an earlier day is not even read
    path = tmp_path / "turns" / "another.json"
    before = (NOON - timedelta(days=2)).timestamp()
    os.utime(path, (before, before))
    path.with_name("old.json").write_text("{")
    os.utime(path.with_name("old.json"), (before, before))
    assert turns.of_day(NOON) == {("demo-1", 3), ("shown", 4)}


@pytest.mark.parametrize("content", ["{", "[]", '{"run": "another"}', ""])
def test_a_damaged_file_refuses_the_run_and_no_other(turns, tmp_path, content):
    answer(turns, order(1))
    (tmp_path / "turns" / "demo-1.json").write_text(content)
    for attempt in (lambda: turns.check(order(2)), lambda: turns.ended("demo-1")):
        with pytest.raises(StateError, match=r"demo-1\.json cannot be read"):
            attempt()
    assert not turns.check(order(1, run="another"))


@pytest.mark.parametrize(
    "run", ["..", "a..b", ".hidden", "a/b", "", "x" * 65, "a\n", "-a", "a b", "ä"]
)
def test_an_id_that_could_lead_out_of_the_folder_is_refused(tmp_path, run):
    files = RunFiles(tmp_path / "turns")
    for attempt in (lambda: files.read(run), lambda: files.write(run, {})):
        with pytest.raises(ExchangeError, match="cannot be the id of a run"):
            attempt()
    assert not list(tmp_path.rglob("*"))


def test_what_cannot_be_kept_is_refused(tmp_path):
    (tmp_path / "turns").write_text("in the way")
    with pytest.raises(StateError, match="cannot write"):
        Turns(tmp_path).begin(order(1), TODAY)


def test_folders_are_the_owners_alone_and_files_are_json(turns, tmp_path):
    answer(turns, order(1))
    folder = tmp_path / "turns"
    assert folder.stat().st_mode & 0o077 == 0
    assert json.loads((folder / "demo-1.json").read_text())["run"] == "demo-1"
    assert RunFiles(folder).runs() == ["demo-1"]
