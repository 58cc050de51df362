"""Processes that are kept: real ones, of a few lines each."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from vgmedgen.errors import StateError
from vgmedgen.process import children, logs
from vgmedgen.process.children import Child
from vgmedgen.process.lock import is_held, only_one

SLEEP = "import time; print('up', flush=True); time.sleep(60)"


def python(code, **more):
    return Child("kid", [sys.executable, "-u", "-c", code], **more)


def wait(until, seconds=300.0):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def kept():
    made = []

    def keep(child):
        made.append(child)
        return child

    yield keep
    for child in made:
        child.stop(1)


def test_a_child_that_ends_is_started_again_after_a_growing_pause(kept, caplog):
    child = kept(python("raise SystemExit(3)"))
    child.tend()
    pauses = []
    for _ in range(3):
        wait(lambda: not child.running)
        child.tend()
        pauses.append(child.pause)
        assert not child.running
        child.due = 0.0
        child.tend()
        assert child.process is not None
    assert pauses == [2.0, 4.0, 8.0]
    for seconds in (1, 2, 4):
        assert f"exit status 3; starting it again in {seconds} s" in caplog.text


def test_a_child_that_is_killed_is_named_with_the_signal(kept, caplog):
    child = kept(python(SLEEP))
    child.tend()
    wait(lambda: child.lines)
    os.kill(child.process.pid, signal.SIGKILL)
    wait(lambda: not child.running)
    child.tend()
    assert "kid ended: signal SIGKILL" in caplog.text


def test_what_a_child_says_is_logged_with_its_level_and_without_colours(kept, caplog):
    caplog.set_level(logging.INFO)
    code = "print('WARNING server.x: mind'); print('\\x1b[92mINFO\\x1b[0m plain')"
    child = kept(python(code))
    child.tend()
    wait(lambda: len(caplog.records) >= 2)
    assert [(r.levelname, r.getMessage(), r.source) for r in caplog.records[:2]] == [
        ("WARNING", "mind", "kid"),
        ("INFO", "plain", "kid"),
    ]


def test_why_a_child_ended_and_when_it_starts_again_can_be_told(kept, caplog):
    child = kept(
        python(
            "print('[code: 2004] no'); raise SystemExit(1)",
            explain=lambda told, status: (
                f"{'taken' if '2004' in told else '?'} {status}"
            ),
            pause_of=lambda told, pause: 20.0,
        )
    )
    child.tend()
    wait(lambda: not child.running)
    child.tend()
    assert "kid ended: taken 1; starting it again in 20 s" in caplog.text
    assert child.due >= child.started + 20


def test_a_child_that_does_not_stop_is_ended(kept):
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('up', flush=True); time.sleep(60)"
    )
    child = kept(python(code))
    child.tend()
    wait(lambda: child.lines)
    pid = child.process.pid
    child.stop(0.3)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_ends_when_its_keeper_is_killed(tmp_path):
    told = tmp_path / "pid"
    grand = (
        "import os, time; from pathlib import Path;"
        "from vgmedgen.process.children import follow_keeper; follow_keeper();"
        f"Path({str(told)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    keeper = (
        "import sys, time; from vgmedgen.process.children import Child;"
        f"Child('kid', [sys.executable, '-c', {grand!r}]).tend(); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", keeper])
    wait(lambda: told.is_file() and told.read_text())
    process.kill()
    process.wait()

    def gone():
        try:
            os.kill(int(told.read_text()), 0)
        except ProcessLookupError:
            return True
        return False

    wait(gone)


def test_one_process_per_folder(tmp_path):
    path = tmp_path / "node" / "lock"
    assert not is_held(path)
    with only_one(path, "a node"):
        assert is_held(path)
        with (
            pytest.raises(
                StateError, match=rf"a node is running already.*{os.getpid()}"
            ),
            only_one(path, "a node"),
        ):
            pass
    assert not is_held(path)
    with only_one(path, "a node"):
        pass


def test_a_log_line_carries_no_text_of_an_exception(tmp_path, capsys):
    root = logging.getLogger()
    held, level = list(root.handlers), root.level
    try:
        logs.child(tmp_path / "node" / "details.log")
        try:
            int("patient-Ana-17")
        except ValueError:
            logging.getLogger("client.x").exception("stopped (%s)", "VG20")
        line = capsys.readouterr().err
        assert line == "ERROR client.x: stopped (VG20)\n"
        full = tmp_path / "node" / "details.log"
        assert "patient-Ana-17" in full.read_text()
        assert full.stat().st_mode & 0o777 == 0o600
    finally:
        for handler in list(root.handlers):
            root.removeHandler(handler)
        for handler in held:
            root.addHandler(handler)
        root.setLevel(level)


def test_json_lines_are_json_whatever_a_child_says(capsys):
    import json

    root = logging.getLogger()
    held, level = list(root.handlers), root.level
    try:
        logs.keeper(as_json=True)
        logging.getLogger("server.kid").warning(
            "%s", 'a "quote" \u2028 and \x00', extra={"source": "kid"}
        )
        (line,) = capsys.readouterr().err.splitlines()
        told = json.loads(line)
        assert told["level"] == "warning"
        assert told["source"] == "kid"
        assert told["message"] == 'a "quote"   and  '
    finally:
        for handler in list(root.handlers):
            root.removeHandler(handler)
        for handler in held:
            root.addHandler(handler)
        root.setLevel(level)


def test_the_shortest_pause_comes_back_after_a_long_life(kept, monkeypatch, caplog):
    monkeypatch.setattr(children, "STEADY_S", 0.0)
    child = kept(python("raise SystemExit(1)"))
    child.pause = 32.0
    child.tend()
    wait(lambda: not child.running)
    child.tend()
    assert "starting it again in 1 s" in caplog.text


def test_what_a_child_says_cannot_steer_a_terminal(caplog):
    caplog.set_level(logging.INFO)
    child, heard = python(""), []
    child.hear = heard.append
    line = "x\x1b]0;owned\x07\x1b[2J\x9b1m\x00\ry"
    child._say(logging.getLogger("kid"), line)
    (record,) = caplog.records
    for text in (record.getMessage(), *heard, *child.lines):
        assert text.isprintable()
        assert (text[0], text[-1]) == ("x", "y")


def test_a_lock_holds_on_a_full_disk_too(tmp_path, monkeypatch):
    from vgmedgen.process import lock

    def full(*words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock.os, "pwrite", full)
    with only_one(tmp_path / "lock", "a node"):
        assert is_held(tmp_path / "lock")
        with (
            pytest.raises(StateError, match="process unknown"),
            only_one(tmp_path / "lock", "a node"),
        ):
            pass
