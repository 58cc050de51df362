"""An append-only table of facts in SQLite, every row bound to the one before by a hash.

Beside the table lies `ledger.head`, the number and hash of its last row. It is written
after each commit, so it may lag behind the table after a crash and can never be ahead:
a table whose end was cut off, or that was put back from a copy, is found out. Whoever can
write both files can still forge both; this is a guard against accidents and against edits
of the table, not against the owner of the machine.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vgmedgen.errors import StateError
from vgmedgen.files import write_text

FIRST = "0" * 64  # what stands for the hash before the first row
WAIT_S = 30.0  # seconds for another process that books: it may be composing epsilon
BACKWARDS_S = 1.0  # seconds by which a clock may be corrected backwards

SCHEMA = {
    "rows": "CREATE TABLE rows (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, "
    "facts TEXT NOT NULL, time TEXT NOT NULL, previous TEXT NOT NULL UNIQUE, "
    "hash TEXT NOT NULL UNIQUE)",
    "members": "CREATE TABLE members (cohort INTEGER NOT NULL, unit_hash TEXT NOT NULL, "
    "image_hash TEXT NOT NULL, PRIMARY KEY (cohort, unit_hash, image_hash))",
    "one_stage": "CREATE UNIQUE INDEX one_stage ON rows (json_extract(facts, '$.run'), "
    "json_extract(facts, '$.round'), json_extract(facts, '$.stage')) "
    "WHERE kind = 'stage'",
    "one_reply": "CREATE UNIQUE INDEX one_reply ON rows "
    "(json_extract(facts, '$.booking')) WHERE kind = 'reply'",
    "one_cohort": "CREATE UNIQUE INDEX one_cohort ON rows "
    "(json_extract(facts, '$.cohort')) WHERE kind = 'cohort'",
} | {
    f"no_{verb}_{table}": f"CREATE TRIGGER no_{verb}_{table} BEFORE {verb} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for table in ("rows", "members")
    for verb in ("update", "delete")
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fact, and where it stands in the chain."""

    number: int  # from 1, without a gap
    kind: str
    facts: Mapping[str, Any]
    time: str  # ISO 8601, UTC
    previous: str  # hash of the row before
    hash: str

    def to_json(self) -> str:
        """The row as one line of JSON."""
        return canonical(vars(self))


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces; equal facts give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def hash_of(
    previous: str, number: int, kind: str, facts: Mapping[str, Any], time: str
) -> str:
    """sha256 of the previous hash followed by the row's own facts, in hexadecimal."""
    own = canonical({"number": number, "kind": kind, "facts": facts, "time": time})
    return hashlib.sha256((previous + own).encode()).hexdigest()


class Chain:
    """The table in one file, and the head beside it.

    Every operation opens its own connection: nothing is shared between threads or
    across a fork, and what is read is checked against the whole chain each time.
    """

    def __init__(self, path: Path, *, headless: bool = False) -> None:
        self.path = path
        self.head = None if headless else path.with_suffix(".head")

    @property
    def begun(self) -> bool:
        """Whether there is a table, or was one.

        Raises:
            StateError: if there is a file that is not a database.
        """
        if self.head is not None and self.head.is_file():
            return True
        if not self.path.is_file() or not self.path.stat().st_size:
            return False
        # a kill while it was begun leaves bytes, and a journal that takes them back
        with self._transaction("rw", "BEGIN") as db:
            return db.execute("SELECT name FROM sqlite_master").fetchone() is not None

    def begin(self, facts: Mapping[str, Any]) -> bool:
        """Create the table with `facts` as its first row, whole or not at all.

        Returns:
            False if another process has just begun it.
        """
        with self._transaction("rwc") as db:
            if db.execute("SELECT name FROM sqlite_master").fetchone():
                return False
            for statement in SCHEMA.values():
                db.execute(statement)
            self.append(db, [], "open", facts)
        self.advance()
        return True

    @contextmanager
    def writing(self) -> Iterator[tuple[sqlite3.Connection, list[Row]]]:
        """One transaction that may append; yields it and the rows so far.

        From here on no other process can book. All that was appended is on disk when
        the block ends, or nothing is.

        Raises:
            StateError: if the table is damaged, locked or cannot be written.
        """
        with self._transaction("rw") as db:
            yield db, self._checked(db)
        self.advance()

    def read(self) -> list[Row]:
        """All rows, the whole chain verified.

        Raises:
            StateError: naming the first row that is not as it was written.
        """
        with self.reading() as (_, rows):
            return rows

    @contextmanager
    def reading(self) -> Iterator[tuple[sqlite3.Connection, list[Row]]]:
        """A view that does not move while others append; yields it and its rows."""
        with self._transaction("rw", "BEGIN") as db:
            yield db, self._checked(db)

    def append(
        self,
        db: sqlite3.Connection,
        rows: list[Row],
        kind: str,
        facts: Mapping[str, Any],
    ) -> Row:
        """Add one row behind `rows`, inside the caller's transaction.

        Raises:
            StateError: if the clock went backwards since the last row.
        """
        now = _now()
        if rows:
            ago = (datetime.fromisoformat(rows[-1].time) - now).total_seconds()
            if ago > BACKWARDS_S:
                raise StateError(
                    f"the clock says {now.isoformat(timespec='seconds')}, {ago:.0f} s "
                    f"before row {rows[-1].number} of {self.path} was written; set the "
                    "clock right, then start again"
                )
        number, time = len(rows) + 1, now.isoformat(timespec="milliseconds")
        previous = rows[-1].hash if rows else FIRST
        row = Row(
            number=number,
            kind=kind,
            facts=facts,
            time=time,
            previous=previous,
            hash=hash_of(previous, number, kind, facts, time),
        )
        db.execute(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)",
            (number, kind, canonical(facts), time, previous, row.hash),
        )
        rows.append(row)
        return row

    def advance(self) -> None:
        """Let the head name the last row.

        It is written while the table is locked, so that of two processes that booked
        the later one also has the last word here.
        """
        if self.head is None:
            return
        with self._transaction("rw") as db:
            number, told = db.execute(
                "SELECT number, hash FROM rows ORDER BY number DESC LIMIT 1"
            ).fetchone()
            write_text(self.head, f"{number} {told}\n")

    def copy(self, path: Path) -> None:
        """Copy the table as it is now to `path`, whole or not at all."""
        part = path.with_name(f".{path.name}.part")
        with self._transaction("rw", "BEGIN") as db:
            try:
                part.unlink(missing_ok=True)
                with closing(sqlite3.connect(part)) as other:
                    other.execute("PRAGMA synchronous = EXTRA")
                    db.backup(other)
                part.replace(path)
            except (OSError, sqlite3.Error) as error:
                with contextlib.suppress(OSError):
                    part.unlink()
                raise StateError(
                    f"cannot write {path}: {error}; free some space or choose another "
                    "place, then start again"
                ) from error

    @contextmanager
    def _transaction(
        self, mode: str, begin: str = "BEGIN IMMEDIATE"
    ) -> Iterator[sqlite3.Connection]:
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        try:
            with closing(
                sqlite3.connect(address, timeout=WAIT_S, isolation_level=None, uri=True)
            ) as db:
                # A rollback journal, not WAL: the ledger is one file when at rest, so a
                # backup that copies one file copies all of it. EXTRA also syncs the
                # folder after the journal is removed; without it a power cut could
                # bring the journal back and undo a row that was reported as booked.
                db.execute("PRAGMA journal_mode = DELETE")
                db.execute("PRAGMA synchronous = EXTRA")
                db.execute(begin)
                yield db  # closing without COMMIT rolls back
                db.execute("COMMIT")
        except sqlite3.Error as error:
            raise StateError(f"{self.path}: {_advice(error)}") from error

    def _checked(self, db: sqlite3.Connection) -> list[Row]:
        """The rows that `db` sees, every link of the chain and the schema verified."""
        head = self._head()
        there = dict(
            db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        )
        for name in sorted(SCHEMA.keys() | there.keys()):
            if SCHEMA.get(name) != there.get(name):
                raise self._damage(f"its part '{name}' was added, changed or removed")
        rows: list[Row] = []
        fields = "number, kind, facts, time, previous, hash"
        for values in db.execute(f"SELECT {fields} FROM rows ORDER BY number"):  # noqa: S608
            rows.append(self._linked(values, rows))
        if not rows:
            raise self._damage("it holds no rows")
        self._match(head, rows)
        return rows

    def _linked(self, values: tuple[Any, ...], rows: list[Row]) -> Row:
        number, kind, text, time, previous, told = values
        due = len(rows) + 1
        if number != due:
            raise self._damage(f"row {due} is gone; the next is row {number}")
        if previous != (rows[-1].hash if rows else FIRST):
            raise self._damage(f"row {number} does not follow row {number - 1}")
        try:
            facts = json.loads(text)
            whole = hash_of(previous, number, kind, facts, time) == told
        except (TypeError, ValueError):
            whole = False
        if not whole or canonical(facts) != text:
            raise self._damage(f"row {number} was changed after it was written")
        return Row(
            number=number,
            kind=kind,
            facts=facts,
            time=time,
            previous=previous,
            hash=told,
        )

    def _head(self) -> tuple[int, str] | None:
        if self.head is None:
            return None
        try:
            number, told = self.head.read_text(encoding="utf-8").split()
            return max(1, int(number)), told
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise self._damage(f"{self.head.name} cannot be read") from None

    def _match(self, head: tuple[int, str] | None, rows: list[Row]) -> None:
        """The row that the head names must be there, as the head names it."""
        if self.head is None:
            return
        if head is None:
            # a crash right after the first row, or after an export was installed
            if len(rows) > 1 and rows[-1].kind != "adopted":
                raise self._damage(f"{self.head.name} is gone")
        elif head[0] > len(rows):
            raise self._damage(
                f"{self.head.name} names row {head[0]}, but the last is {len(rows)}: rows "
                "were removed"
            )
        elif rows[head[0] - 1].hash != head[1]:
            raise self._damage(
                f"row {head[0]} is not the one that {self.head.name} names: the file was "
                "replaced or rewritten"
            )

    def _damage(self, what: str) -> StateError:
        return StateError(
            f"{self.path} is damaged: {what}; nothing is booked on it until the ledger and "
            "its head are put back from a backup of the same moment"
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _advice(error: sqlite3.Error) -> str:
    told = str(error)
    if "locked" in told:
        return "in use by another process; wait for it, then start again"
    if "unable to open" in told:
        return "cannot be opened; it is missing, or not to be written by this user"
    if "full" in told:
        return "the disk is full; free some space, then start again"
    if "not a database" in told or "malformed" in told:
        return f"not a whole ledger ({told}); put it back from a backup"
    return f"cannot be used ({told}); nothing was booked"
