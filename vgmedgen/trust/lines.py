"""An audit log in lines, as both command lines print it."""

import json
from collections.abc import Iterator
from pathlib import Path

from vgmedgen.trust.journal import Journal

_FRAMING = frozenset({"n", "at", "event", "previous", "hash"})


def verified(path: Path) -> list[str]:
    """What to say of a log that was checked whole.

    Raises:
        StateError: naming the first line that was changed, removed or reordered.
    """
    head = Journal(path).verify()
    return [
        f"{path} is whole: {head.count} lines, the last of {head.at or 'never'}",
        f"head {head.hash}",
    ]


def shown(path: Path, *, run: str = "", as_json: bool = False) -> Iterator[str]:
    """The log's lines, oldest first.

    Args:
        path: of the log.
        run: only lines of this run; empty takes all.
        as_json: as they are; else for people, without the chain.

    Raises:
        StateError: if the log cannot be read.
    """
    for entry in Journal(path).entries():
        if run and entry.get("run") != run:
            continue
        if as_json:
            yield json.dumps(entry)
            continue
        facts = " ".join(f"{k}={v}" for k, v in entry.items() if k not in _FRAMING)
        head = f"{entry['n']:>6} {entry['at'][:19]} {entry['event']:<9}"
        yield f"{head} {facts}".rstrip()
