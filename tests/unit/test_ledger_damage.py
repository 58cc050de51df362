"""What happened to a ledger behind its back is found, and named in one line."""

import shutil
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from tests.bookings import UNITS, book, entry
from vgmedgen.errors import StateError
from vgmedgen.privacy import chain as chain_module
from vgmedgen.privacy.chain import SCHEMA, hash_of
from vgmedgen.privacy.ledger import Ledger


def edit(ledger: Ledger, *statements: str) -> None:
    """Change the file behind the ledger's back, its fences put back afterwards."""
    with sqlite3.connect(ledger.path) as db:
        fences = [name for name in SCHEMA if name.startswith("no_")]
        for name in fences:
            db.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            db.execute(statement)
        for name in fences:
            db.execute(SCHEMA[name])
    db.close()


DAMAGE = {
    "edited facts": (
        ["UPDATE rows SET facts = replace(facts, '[5.0,', '[9.0,') WHERE number = 5"],
        "row 5 was changed",
    ),
    "edited time": (
        ["UPDATE rows SET time = '2020-01-01T00:00:00+00:00' WHERE number = 4"],
        "row 4 was changed",
    ),
    "facts that are no JSON": (
        ["UPDATE rows SET facts = x'00' WHERE number = 1"],
        "row 1 was changed",
    ),
    "deleted row": (["DELETE FROM rows WHERE number = 4"], "row 4 is gone"),
    "deleted tail": (["DELETE FROM rows WHERE number > 5"], "names row 7.*last is 5"),
    "all but the first deleted": (["DELETE FROM rows WHERE number > 1"], "removed"),
    "all deleted": (["DELETE FROM rows"], "no rows"),
    "swapped rows": (
        [
            "UPDATE rows SET number = -3 WHERE number = 3",
            "UPDATE rows SET number = 3 WHERE number = 5",
            "UPDATE rows SET number = 5 WHERE number = -3",
        ],
        "row 3 does not follow",
    ),
    "changed members": (
        ["UPDATE members SET unit_hash = 'x' WHERE rowid = 1"],
        "members of cohort 1",
    ),
    "removed members": (["DELETE FROM members"], "members of cohort 1"),
    "members of no cohort": (
        ["INSERT INTO members VALUES (9, 'u', 'i')"],
        "members of cohort 9",
    ),
    "a fence removed": (["DROP INDEX one_stage"], "'one_stage' was added, changed"),
    "a trigger that swallows": (
        ["CREATE TRIGGER quiet BEFORE INSERT ON rows BEGIN SELECT RAISE(IGNORE); END"],
        "'quiet' was added",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(filled, tmp_path, name):
    statements, told = DAMAGE[name]
    edit(filled, *statements)
    with pytest.raises(StateError, match=told) as refused:
        Ledger.open(tmp_path / "site", "site-a")
    assert "\n" not in str(refused.value)
    with pytest.raises(StateError):
        Ledger.at(tmp_path / "site", "site-a")
    if "members" not in name:  # an open ledger notices as well
        with pytest.raises(StateError):
            book(filled, entry(4))


def test_rows_rewritten_with_fitting_hashes_do_not_fit_the_head(filled):
    rows, before = filled.rows(), "0" * 64
    statements = []
    for row in rows:
        facts = dict(row.facts)
        if row.number == 3:
            facts["mechanisms"] = [[90.0, 0.25, 20]]
        told = hash_of(before, row.number, row.kind, facts, row.time)
        changed = f"'{chain_module.canonical(facts)}', '{before}', '{told}'"
        statements.append(
            f"UPDATE rows SET (facts, previous, hash) = ({changed}) "  # noqa: S608
            f"WHERE number = {row.number}"
        )
        before = told
    edit(filled, *statements)
    with pytest.raises(StateError, match="row 7 is not the one"):
        filled.verify()


@pytest.mark.parametrize("verb", ["UPDATE rows SET kind = 'x'", "DELETE FROM members"])
def test_the_table_refuses_to_be_changed(filled, verb):
    with (
        sqlite3.connect(filled.path) as db,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        db.execute(verb)
    db.close()


def test_another_file_in_its_place_is_found(filled, tmp_path):
    early = tmp_path / "early"
    shutil.copy(filled.path, early)
    book(filled, entry(9))
    shutil.copy(early, filled.path)
    with pytest.raises(StateError, match="names row 8"):
        filled.rows()
    (tmp_path / "other").mkdir()
    other = Ledger.create(tmp_path / "other", "site-a")
    other.cohort_for(UNITS, "patient")
    for number in range(1, 9):
        book(other, entry(number), limit=99.0)
    shutil.copy(other.path, filled.path)
    with pytest.raises(StateError, match="replaced or rewritten"):
        filled.rows()


@pytest.mark.parametrize("content", [b"", b"not a database, but longer than a header"])
def test_a_file_that_is_no_ledger_is_refused_in_one_line(filled, tmp_path, content):
    filled.path.write_bytes(content)
    for opening in (Ledger.open, Ledger.at):
        with pytest.raises(StateError) as refused:
            opening(tmp_path / "site", "site-a")
        assert "\n" not in str(refused.value)
    with pytest.raises(StateError):
        Ledger.create(tmp_path / "site", "site-a")


def test_a_lost_head_is_found_and_a_head_that_is_behind_catches_up(filled, tmp_path):
    head = tmp_path / "site" / "ledger.head"
    last = head.read_text()
    head.write_text(f"5 {filled.rows()[4].hash}\n")
    Ledger.open(tmp_path / "site", "site-a")
    assert head.read_text() == last
    head.unlink()
    with pytest.raises(StateError, match=r"ledger\.head is gone"):
        Ledger.open(tmp_path / "site", "site-a")


def test_a_crash_right_after_the_first_row_is_no_damage(tmp_path):
    Ledger.create(tmp_path, "site-a")
    (tmp_path / "ledger.head").unlink()
    assert len(Ledger.at(tmp_path, "site-a").rows()) == 1


def test_a_clock_that_went_backwards_is_refused(filled, monkeypatch):
    def at(seconds: float) -> None:
        then = datetime.now(UTC) + timedelta(seconds=seconds)
        monkeypatch.setattr(chain_module, "_now", lambda: then)

    at(-0.5)
    book(filled, entry(4))
    at(-60)
    with pytest.raises(StateError, match="set the clock right"):
        book(filled, entry(5))
    with pytest.raises(StateError, match="clock"):
        filled.open_cohort({"x": ["y"]}, "patient")
    assert len(filled.rows()) == 8


def test_a_ledger_in_use_says_so_at_once(filled, monkeypatch):
    monkeypatch.setattr(chain_module, "WAIT_S", 0.05)
    with (
        filled.working(),
        pytest.raises(StateError, match="in use by another process"),
        Ledger(filled.folder, "site-a").working(),
    ):
        pass
    with filled.working():
        book(filled, entry(4))
    with sqlite3.connect(filled.path, isolation_level=None) as db:
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateError, match="in use by another process"):
            book(filled, entry(5))
    db.close()


def test_a_full_disk_books_nothing(filled):
    def fill() -> None:
        with filled.chain.writing() as (db, rows):
            pages = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {pages}")
            for number in range(100):
                filled.chain.append(db, rows, "stage", entry(50 + number).facts)

    with pytest.raises(StateError, match="disk is full"):
        fill()
    assert len(filled.rows()) == 7
