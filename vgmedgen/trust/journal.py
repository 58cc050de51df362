"""An audit log: append-only JSON lines, each bound to the one before by a hash.

```text
{"n": 1, "at": "…+00:00", "event": "in", …facts…, "previous": "…", "hash": "…"}
```

`hash` is the sha256 of the line's other members as JSON with sorted keys and no spaces.
Beside the log lies its head, the number and hash of its last line, so that an end that
was cut off is found. Whoever can write both files can forge both: an officer who notes
the head's hash elsewhere now and then closes that gap too.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vgmedgen.errors import StateError
from vgmedgen.files import write_text
from vgmedgen.trust.facts import checked

FIRST = "0" * 64  # what stands for the hash before the first line
_LONGEST = 8192  # bytes of a line; the forms of all facts together allow fewer


@dataclass(frozen=True)
class Head:
    """Where a log ends."""

    count: int  # lines
    hash: str  # of the last one
    at: str  # when that was written, ISO 8601, UTC; empty for a log without lines


class Journal:
    """The log in one file, and the head beside it; safe between threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = path.with_suffix(".head")

    def add(self, event: str, **facts: str | int | float | bool) -> None:
        """Append one line; it is on disk when this returns.

        Args:
            event: one of `EVENTS`.
            **facts: of `FACTS`; an empty word is left out.

        Raises:
            StateError: if the facts are not of their form, the log cannot be written,
                or its end is not as it was written.
        """
        said = checked(event, facts)
        with self._writing() as number:
            self._append(number, self._last(number), event, said)

    def entries(self) -> list[dict[str, Any]]:
        """Every finished line, oldest first, not verified (see `verify`).

        Raises:
            StateError: if the log cannot be read, or a line is not JSON.
        """
        found = []
        for due, line in enumerate(self._read()[0], start=1):
            entry = _parsed(line)
            if entry is None:
                raise self._damage(due, "is not a line of an audit log")
            found.append(entry)
        return found

    def verify(self) -> Head:
        """Check every line, its place in the chain, and the head.

        Returns:
            Where the log ends; count 0 where there is none yet.

        Raises:
            StateError: naming the first line that was changed, removed or reordered.
        """
        lines, rest, head = self._read()
        last = self._chained(lines)
        if rest:
            raise StateError(
                f"{self.path}: line {last.count + 1} is unfinished, as after a crash; the "
                "next start drops it and says so in the log"
            )
        self._match(head, lines, last)
        if head is not None and head[0] < last.count:
            raise StateError(
                f"{self.path} has {last.count} lines, {self.head.name} names line "
                f"{head[0]}: a crash fell between the two files, or a line was added by "
                "other means; the next start notes it in the log"
            )
        return last

    def _append(
        self, number: int, last: Head, event: str, facts: Mapping[str, Any]
    ) -> Head:
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        entry: dict[str, Any] = {"n": last.count + 1, "at": at, "event": event, **facts}
        entry["previous"] = last.hash
        entry["hash"] = _hash(entry)
        line = json.dumps(entry).encode() + b"\n"
        before = os.fstat(number).st_size
        try:
            if os.write(number, line) != len(line):
                raise OSError(None, "the disk is full")  # noqa: TRY301
            os.fsync(number)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(number, before)
            raise self._unwritten(error) from error
        now = Head(last.count + 1, entry["hash"], at)
        write_text(self.head, f"{now.count} {now.hash}\n")
        return now

    def _last(self, number: int) -> Head:
        """The last line of the open log, after mending what a crash left behind."""
        size = os.fstat(number).st_size
        tail = os.pread(number, _LONGEST, max(0, size - _LONGEST))
        whole, _, rest = tail.rpartition(b"\n")
        entry = _parsed(whole.rpartition(b"\n")[2]) if whole else None
        head = self._head()
        if entry is not None and not rest and head == (entry["n"], entry["hash"]):
            return Head(entry["n"], entry["hash"], entry["at"])
        if not size and head is None:
            return Head(0, FIRST, "")
        return self._mended(number, head)

    def _mended(self, number: int, head: tuple[int, str] | None) -> Head:
        """What a crash can leave is mended and told; anything else is damage."""
        content = os.pread(number, os.fstat(number).st_size, 0)
        lines, rest = _split(content)
        last = self._chained(lines)
        self._match(head, lines, last)
        if rest:
            os.ftruncate(number, len(content) - len(rest))
        why = "unfinished-line" if rest else "head-behind"
        return self._append(number, last, "mended", {"why": why})

    def _chained(self, lines: list[bytes]) -> Head:
        last = Head(0, FIRST, "")
        for due, line in enumerate(lines, start=1):
            entry = _parsed(line)
            if entry is None:
                raise self._damage(due, "was changed after it was written")
            if entry["previous"] != last.hash or entry["n"] != due:
                raise self._damage(
                    due,
                    f"does not follow line {due - 1}: a line was changed, removed, added "
                    "or moved here",
                )
            last = Head(due, entry["hash"], entry["at"])
        return last

    def _match(
        self, head: tuple[int, str] | None, lines: list[bytes], last: Head
    ) -> None:
        """The line that the head names must be there, as the head names it."""
        if head is None:
            if last.count > 1:  # a crash right after the first line leaves no head
                raise self._damage(last.count, f"stands, but {self.head.name} is gone")
            return
        count, told = head
        if count > last.count:
            raise self._damage(
                last.count + 1,
                f"is gone: {self.head.name} names {count} lines, the log has {last.count}",
            )
        entry = _parsed(lines[count - 1])
        if entry is None or entry["hash"] != told:
            raise self._damage(count, f"is not the one that {self.head.name} names")

    def _head(self) -> tuple[int, str] | None:
        try:
            count, told = self.head.read_text(encoding="utf-8").split()
            return max(1, int(count)), told
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise StateError(
                f"{self.head} cannot be read; keep it and {self.path.name} as they are, "
                "put both back from one backup, or move both away to begin a new log"
            ) from None

    def _read(self) -> tuple[list[bytes], bytes, tuple[int, str] | None]:
        """Finished lines, what stands behind the last of them, and the head."""
        try:
            with self.path.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH)  # not while a line is being written
                return *_split(stream.read()), self._head()
        except FileNotFoundError:
            return [], b"", self._head()
        except OSError as error:
            raise StateError(
                f"cannot read {self.path}: {error.strerror or error}"
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[int]:
        """The log, open and locked; others wait."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # a link is not followed: it would have somebody else's file written
            how = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            number = os.open(self.path, how, 0o600)
        except OSError as error:
            raise self._unwritten(error) from error
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            yield number
        except OSError as error:
            raise self._unwritten(error) from error
        finally:
            os.close(number)

    def _unwritten(self, error: OSError) -> StateError:
        return StateError(
            f"cannot write {self.path}: {error.strerror or error}; nothing happens here "
            "that the log does not hold: free some space or mend its permissions"
        )

    def _damage(self, line: int, what: str) -> StateError:
        return StateError(
            f"{self.path}: line {line} {what}; keep it and {self.head.name} as evidence, "
            "put both back from one backup, or move both away to begin a new log"
        )


def _split(content: bytes) -> tuple[list[bytes], bytes]:
    *lines, rest = content.split(b"\n")
    return lines, rest


def _hash(entry: Mapping[str, Any]) -> str:
    own = {name: value for name, value in entry.items() if name != "hash"}
    canonical = json.dumps(own, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The entry, or None for a line that is not exactly as `add` writes it."""
    try:
        entry = json.loads(line)
        if json.dumps(entry).encode() != line or entry["hash"] != _hash(entry):
            return None
        return {**entry, "n": int(entry["n"]), "at": str(entry["at"])}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
