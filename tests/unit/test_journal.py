"""The audit log: whatever is done to it by other means is found, and nothing else is."""

import contextlib
import json
import multiprocessing
import os
import random
import threading
from pathlib import Path

import pytest

from vgmedgen.errors import StateError
from vgmedgen.trust import journal as module
from vgmedgen.trust.facts import FACTS
from vgmedgen.trust.journal import FIRST, Head, Journal

LINES = 7


@pytest.fixture
def journal(tmp_path) -> Journal:
    made = Journal(tmp_path / "audit.jsonl")
    for number in range(LINES):
        made.add("in", run="pilot-1", round=number, kind="train", bytes=10 * number)
    return made


def lines_of(journal: Journal) -> list[bytes]:
    return journal.path.read_bytes().splitlines(keepends=True)


def put(journal: Journal, lines: list[bytes]) -> None:
    journal.path.write_bytes(b"".join(lines))


def forged(entry: dict, **changes) -> bytes:
    """A line whose own hash is right."""
    told = {**entry, **changes}
    told["hash"] = module._hash(told)
    return json.dumps(told).encode() + b"\n"


def refused(journal: Journal, match: str) -> None:
    """The damage is named in one line, and no later entry covers it up."""
    content = journal.path.read_bytes()
    with pytest.raises(StateError, match=match) as caught:
        journal.verify()
    assert str(journal.path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with contextlib.suppress(StateError):  # it only looks at the end
        journal.add("stop")
    assert journal.path.read_bytes().startswith(content)
    with pytest.raises(StateError, match=match):
        journal.verify()


def closed(journal: Journal) -> None:
    """Nothing more is written."""
    content = journal.path.read_bytes()
    with pytest.raises(StateError):
        journal.add("stop")
    assert journal.path.read_bytes() == content


def test_a_log_tells_what_was_added_and_where_it_ends(journal):
    entries = journal.entries()
    assert [entry["n"] for entry in entries] == list(range(1, LINES + 1))
    assert entries[0]["previous"] == FIRST
    assert entries[3] | {"round": 3, "bytes": 30, "event": "in"} == entries[3]
    last = entries[-1]
    assert journal.verify() == Head(LINES, last["hash"], last["at"])


def test_a_log_that_is_not_there_yet_is_whole(tmp_path):
    journal = Journal(tmp_path / "audit.jsonl")
    assert journal.verify() == Head(0, FIRST, "")
    assert journal.entries() == []
    assert not journal.path.exists()


def test_only_its_owner_can_read_a_log(journal):
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_a_log_can_be_checked_without_this_project(journal):
    import hashlib

    before = "0" * 64
    for line in lines_of(journal):
        entry = json.loads(line)
        told = entry.pop("hash")
        canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(canonical.encode()).hexdigest() == told
        assert entry["previous"] == before
        before = told


@pytest.mark.parametrize("place", range(LINES))
def test_a_changed_fact_is_found(journal, place):
    lines = lines_of(journal)
    lines[place] = lines[place].replace(b'"pilot-1"', b'"pilot-2"')
    put(journal, lines)
    refused(journal, f"line {place + 1} was changed")


@pytest.mark.parametrize("place", range(LINES))
def test_a_line_that_was_removed_is_found(journal, place):
    lines = lines_of(journal)
    del lines[place]
    put(journal, lines)
    refused(journal, f"line {place + 1} (is gone|does not follow)")


@pytest.mark.parametrize("place", range(LINES - 1))
def test_swapped_lines_are_found(journal, place):
    lines = lines_of(journal)
    lines[place : place + 2] = reversed(lines[place : place + 2])
    put(journal, lines)
    refused(journal, f"line {place + 1} does not follow")


@pytest.mark.parametrize("place", range(LINES))
def test_an_inserted_line_with_a_right_hash_of_its_own_is_found(journal, place):
    lines, entries = lines_of(journal), journal.entries()
    lines.insert(place, forged(entries[place], event="stop"))
    put(journal, lines)
    refused(journal, f"line {place + 2} does not follow")


@pytest.mark.parametrize("place", range(LINES))
def test_a_changed_line_with_a_right_hash_of_its_own_is_found(journal, place):
    lines, entries = lines_of(journal), journal.entries()
    lines[place] = forged(entries[place], bytes=1)
    put(journal, lines)
    refused(journal, f"line {min(place + 2, LINES)} ")


def test_a_rewritten_chain_is_found_by_the_head(journal, tmp_path):
    other = Journal(tmp_path / "other.jsonl")
    for _ in range(LINES):
        other.add("in")
    journal.path.write_bytes(other.path.read_bytes())
    refused(journal, f"line {LINES} is not the one that audit.head names")
    closed(journal)


def test_a_line_added_behind_the_end_by_other_means_is_found_and_noted(journal):
    last = journal.entries()[-1]
    line = forged(last, n=LINES + 1, previous=last["hash"])
    put(journal, [*lines_of(journal), line])
    with pytest.raises(StateError, match=f"audit.head names line {LINES}"):
        journal.verify()
    # a crash between the two files looks the same; it is mended, and told
    journal.add("start")
    told = journal.entries()[-2:]
    assert [entry["event"] for entry in told] == ["mended", "start"]
    assert told[0]["why"] == "head-behind"
    assert journal.verify().count == LINES + 3


@pytest.mark.parametrize("end", [1, 20, 300])
def test_an_unfinished_line_is_found_dropped_and_noted(journal, end):
    whole = lines_of(journal)
    entry = journal.entries()[-1]
    next_line = forged(entry, n=LINES + 1, previous=entry["hash"])[:-1]
    put(journal, [*whole, next_line[:end]])
    with pytest.raises(StateError, match=f"line {LINES + 1} is unfinished"):
        journal.verify()
    assert len(journal.entries()) == LINES
    journal.add("start")
    assert lines_of(journal)[:LINES] == whole
    told = journal.entries()[LINES:]
    assert [entry["event"] for entry in told] == ["mended", "start"]
    assert told[0]["why"] == "unfinished-line"
    assert journal.verify().count == LINES + 2


def test_a_crash_in_the_very_first_line_is_mended(tmp_path):
    journal = Journal(tmp_path / "audit.jsonl")
    journal.path.write_bytes(b'{"n": 1, "at"')
    journal.add("start")
    assert [entry["event"] for entry in journal.entries()] == ["mended", "start"]
    journal.verify()


def test_a_cut_in_a_finished_last_line_is_no_crash(journal):
    content = journal.path.read_bytes()
    for cut in (1, 30):
        journal.path.write_bytes(content[:-cut])
        refused(journal, f"line {LINES} (is gone|is unfinished)")
        closed(journal)


def test_a_head_that_is_gone_or_says_something_else_is_found(journal):
    count, told = journal.head.read_text().split()
    for text, match in (
        (f"{count} {FIRST}\n", f"line {LINES} is not the one"),
        (f"{LINES + 1} {told}\n", f"line {LINES + 1} is gone"),
        (f"{LINES - 1} {told}\n", f"line {LINES - 1} is not the one"),
        ("nonsense", "audit.head cannot be read"),
    ):
        journal.head.write_text(text)
        before = journal.path.read_bytes()
        with pytest.raises(StateError, match=match):
            journal.verify()
        with pytest.raises(StateError, match=match):
            journal.add("start")
        assert journal.path.read_bytes() == before
    journal.head.unlink()
    refused(journal, "audit.head is gone")
    closed(journal)


def test_a_log_that_was_removed_whole_is_found_by_its_head(journal):
    journal.path.unlink()
    with pytest.raises(StateError, match="line 1 is gone"):
        journal.verify()
    with pytest.raises(StateError, match="line 1 is gone"):
        journal.add("start")


@pytest.mark.parametrize("seed", range(40))
def test_no_random_mutation_goes_unfound(journal, seed):
    random_ = random.Random(seed)  # noqa: S311
    before = journal.path.read_bytes()
    for _ in range(25):
        content = bytearray(before)
        kind = random_.choice(["flip", "cut", "drop", "repeat", "insert", "shuffle"])
        place = random_.randrange(len(content))
        lines = before.splitlines(keepends=True)
        if kind == "flip":
            content[place] ^= 1 << random_.randrange(8)
        elif kind == "cut":
            del content[place:]
        elif kind == "drop":
            del content[place : place + random_.randrange(1, 90)]
        elif kind == "repeat":
            content[place:place] = lines[random_.randrange(LINES)]
        elif kind == "insert":
            content.insert(place, random_.randrange(256))
        else:
            random_.shuffle(lines)
            content = bytearray(b"".join(lines))
        if content == before:
            continue
        journal.path.write_bytes(content)
        with pytest.raises(StateError):
            journal.verify()
    journal.path.write_bytes(before)
    assert journal.verify().count == LINES


@pytest.mark.parametrize(
    ("event", "facts"),
    [
        ("in", {"path": "/data/patient-7.png"}),
        ("in", {"run": "/data/patient-7.png"}),
        ("in", {"why": "cannot read patient-7"}),
        ("in", {"kind": "train.patient-7"}),
        ("in", {"code": "patient-7"}),
        ("in", {"decision": "patient-7"}),
        ("in", {"round": "patient-7"}),
        ("in", {"round": -1}),
        ("in", {"round": 1.5}),
        ("in", {"round": True}),
        ("in", {"bytes": 2**63}),
        ("in", {"seconds": float("nan")}),
        ("in", {"epsilon": float("inf")}),
        ("in", {"digest": "AB" * 32}),
        ("in", {"run": "pilot\n"}),
        ("approve", {"approved_by": "patient-7 (1954)"}),
        ("approve", {"approved_by": "A" * 61}),
        ("patient-7", {}),
    ],
)
def test_nothing_but_listed_facts_of_their_form_gets_in(journal, event, facts):
    before = journal.path.read_bytes()
    with pytest.raises(StateError) as caught:
        journal.add(event, **facts)
    assert journal.path.read_bytes() == before
    if event == "in" and "path" not in facts:
        assert "patient" not in str(caught.value)


def test_every_listed_fact_can_be_told_and_an_empty_word_is_left_out(tmp_path):
    journal = Journal(tmp_path / "audit.jsonl")
    told = {
        "run": "pilot-1.a",
        "round": 0,
        "turn": 3,
        "stage": "align",
        "kind": "query.hello",
        "digest": "ab" * 32,
        "bytes": 5_000_000,
        "seconds": 1.25,
        "decision": "dry-run",
        "code": "VG44",
        "site": "hospital-a",
        "node": "18446744073709551615",
        "coordinator": "cd" * 32,
        "epsilon": 0.5,
        "units": 120,
        "version": "0.1.0",
        "why": "waiting",
        "pid": 4711,
        "approved_by": "Ada O'Neill-Smith Jr.",
    }
    assert told.keys() == FACTS.keys()
    journal.add("approve", **told)
    journal.add("in", stage="", code="")
    first, second = journal.entries()
    assert {name: first[name] for name in told} == told
    assert set(second) == {"n", "at", "event", "previous", "hash"}


def test_the_longest_line_fits_into_what_is_read_of_the_end(tmp_path):
    journal = Journal(tmp_path / "audit.jsonl")
    journal.add(
        "approve",
        run="r" * 64,
        version="1" * 40,
        digest="a" * 64,
        coordinator="b" * 64,
        node="c" * 64,
        approved_by="N" * 60,
        site="s" * 40,
    )
    assert len(lines_of(journal)[0]) < module._LONGEST // 2


def _many(path: Path, count: int) -> None:
    for number in range(count):
        Journal(path).add("out", round=number, pid=os.getpid())


def test_processes_and_threads_at_once_make_one_chain(tmp_path):
    path, count = tmp_path / "audit.jsonl", 60
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_many, args=(path, count)) for _ in range(2)]
    workers += [threading.Thread(target=_many, args=(path, count)) for _ in range(2)]
    for worker in workers:
        worker.start()
    seen = 0
    while any(worker.is_alive() for worker in workers):
        seen = max(seen, Journal(path).verify().count)  # never sees half a line
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers[:2]] == [0, 0]
    assert Journal(path).verify().count == 4 * count
    entries = Journal(path).entries()
    assert not [entry for entry in entries if entry["event"] == "mended"]
    for pid in {entry["pid"] for entry in entries} - {os.getpid()}:
        own = [entry["round"] for entry in entries if entry["pid"] == pid]
        assert own == list(range(count))


def test_a_full_disk_refuses_and_leaves_no_half_line(journal, monkeypatch):
    before = journal.path.read_bytes()
    write = os.write
    monkeypatch.setattr(
        module.os, "write", lambda number, line: write(number, line[:50])
    )
    with pytest.raises(StateError, match=r"cannot write .*disk is full"):
        journal.add("in")
    assert journal.path.read_bytes() == before
    monkeypatch.undo()
    journal.add("in")
    assert journal.verify().count == LINES + 1


def test_a_place_that_cannot_be_written_refuses_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot write") as caught:
        Journal(tmp_path / "file" / "audit.jsonl").add("start")
    assert "\n" not in str(caught.value)
