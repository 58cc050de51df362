"""Two hundred kills at random moments, and never a stage that was not booked before.

The worker is a process of its own that does what a site does: book, train, write the
outcome, book the reply. It is killed, not asked to stop.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from vgmedgen.privacy.chain import Chain
from vgmedgen.privacy.ledger import Ledger

ROOT = Path(__file__).parents[2]
KILLS = 200
FRESH = 4  # every so many kills hit a folder whose ledger is just being begun
LONGEST_S = 0.08  # of a worker's life after its start
UNITS = "{'patient-1': ['image-1'], 'patient-2': ['image-2']}"

START = f"""
import hashlib, os, sys, time
from pathlib import Path
from vgmedgen.files import write_bytes
from vgmedgen.privacy.ledger import Entry, Ledger

folder = Path(sys.argv[1])

def entry(number, order="o"):
    return Entry(
        cohort=1, run="r", round=number, stage="generate", order=order, plan="p",
        base="b", mechanisms=None,
    )

def at():
    ledger = Ledger.at(folder, "site-a")
    ledger.cohort_for({UNITS}, "patient")
    return ledger
"""

WORKER = (
    START
    + """
print("up", flush=True)
ledger = at()
trained = os.open(folder / "trained", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = sum(row.kind == "reply" for row in ledger.rows()) + 1
while True:
    booking = ledger.book(entry(number), limit=0.0, delta=1e-5)
    with ledger.working():
        os.write(trained, f"{number} {booking.number} {booking.hash}\\n".encode())
        os.fsync(trained)
        outcome = folder / f"outcome-{number}"
        if not outcome.is_file():
            write_bytes(outcome, os.urandom(64))
        ledger.reply(booking, hashlib.sha256(outcome.read_bytes()).hexdigest())
    number += 1
"""
)

RIVAL = (
    START
    + """
from vgmedgen.errors import BudgetError
ledger = at()
print("up", flush=True)
sys.stdin.readline()
won = 0
for number in range(1, 26):
    try:
        ledger.book(entry(number, sys.argv[2]), limit=0.0, delta=1e-5)
        won += 1
    except BudgetError:
        pass
print(won)
"""
)


def start(code: str, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-S", "-c", code, *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check(folder: Path) -> int:
    """Everything that must hold after any kill; returns the number of replies."""
    head = folder / "ledger.head"
    if not Chain(folder / "ledger.sqlite").begun:
        return 0
    told = head.read_text().split() if head.is_file() else ["1", ""]
    rows = Ledger.open(folder, "site-a").verify()
    assert int(told[0]) <= len(rows)
    booked = {row.number: row for row in rows if row.kind == "stage"}
    rounds = [row.facts["round"] for row in booked.values()]
    assert rounds == list(range(1, len(rounds) + 1))
    trained = folder / "trained"
    for line in trained.read_text().splitlines() if trained.is_file() else ():
        number, row, told_hash = line.split()
        assert booked[int(row)].hash == told_hash
        assert booked[int(row)].facts["round"] == int(number)
    replies = [row.facts["booking"] for row in rows if row.kind == "reply"]
    assert len(replies) == len(set(replies))
    return len(replies)


def test_no_kill_leaves_a_stage_that_was_not_booked_before(tmp_path):
    chance = random.Random(7)  # noqa: S311  # moments, not secrets
    replies, begun = 0, 0
    old = tmp_path / "old"
    old.mkdir()
    for kill in range(KILLS):
        folder, longest = old, LONGEST_S
        if kill % FRESH == 0:
            folder, longest = tmp_path / f"fresh-{kill}", LONGEST_S / 2
            folder.mkdir()
        worker = start(WORKER, str(folder))
        worker.stdout.readline()
        time.sleep(chance.uniform(0, longest))
        worker.send_signal(signal.SIGKILL)
        _, error = worker.communicate()
        assert worker.returncode == -signal.SIGKILL, error
        now = check(folder)
        if folder == old:
            assert now >= replies
            replies = now
        else:
            begun += (folder / "ledger.sqlite").is_file()
    # it was not killed too early every time to do any work
    assert replies > KILLS / 10
    assert begun > KILLS / FRESH / 4


def test_of_two_processes_that_book_the_same_rounds_one_gets_each(tmp_path):
    Ledger.at(tmp_path, "site-a")
    rivals = [start(RIVAL, str(tmp_path), name) for name in ("a", "b")]
    for rival in rivals:
        assert rival.stdout.readline() == "up\n"
    won = []
    for rival in rivals:
        rival.stdin.write("go\n")
        rival.stdin.flush()
    for rival in rivals:
        out, error = rival.communicate()
        assert rival.returncode == 0, error
        won.append(int(out))
    assert sum(won) == 25
    assert check(tmp_path) == 0
    assert len(Ledger.open(tmp_path, "site-a").rows()) == 27


def test_of_two_processes_that_begin_a_ledger_both_get_the_same(tmp_path):
    rivals = [start(RIVAL, str(tmp_path), name) for name in ("a", "b")]
    for rival in rivals:
        _, error = rival.communicate("go\n")
        assert rival.returncode == 0, error
    kinds = [row.kind for row in Ledger.open(tmp_path, "site-a").rows()]
    assert kinds[:2] == ["open", "cohort"]
    assert kinds.count("stage") == 25
