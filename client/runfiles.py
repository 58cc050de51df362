"""JSON files of a site, one for each run: read whole, written whole, one writer at a time.

A run's id comes from outside and becomes the name of a file; it is looked at once more
here, whoever has looked before.
"""

import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vgmedgen.errors import ExchangeError, StateError
from vgmedgen.exchange.schema import WORDS
from vgmedgen.files import write_text

AUDIT = "audit.jsonl"  # log of a site, in its folder
PRIVATE = 0o700  # of every folder that a site keeps


def named(run: str) -> str:
    """The id of a run, where it can be the name of a file or folder.

    Raises:
        ExchangeError: if it cannot.
    """
    if not re.fullmatch(WORDS["run"], run) or ".." in run:
        raise ExchangeError(
            f"'{run[:70]}' cannot be the id of a run: letters, digits, single dots, "
            "hyphens and underscores, at most 64"
        )
    return run


class RunFiles:
    """One folder of such files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, run: str) -> Path:
        """The file of a run.

        Raises:
            ExchangeError: if the run's id cannot be a file's name.
        """
        return self.folder / f"{named(run)}.json"

    def runs(self) -> list[str]:
        """Every run that has a file, by name."""
        return sorted(path.stem for path in self.folder.glob("[!.]*.json"))

    def read(self, run: str) -> dict[str, Any] | None:
        """What is kept of a run; None if nothing is.

        Raises:
            StateError: if the file cannot be read.
        """
        path = self.path(run)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict) or found.get("run") != run:
            raise StateError(
                f"{path} cannot be read, so the run is refused; put it back from a "
                "backup, or move it away to begin anew with this run"
            )
        return found

    def write(self, run: str, facts: Mapping[str, Any]) -> None:
        """Keep `facts` of a run, whole or not at all.

        Raises:
            StateError: if the disk is full or not writable.
        """
        write_text(self.path(run), json.dumps({**facts, "run": run}, indent=2))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from changing what is read in the meantime.

        Raises:
            StateError: if the folder is not writable.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
            stream = (self.folder / ".lock").open("a", encoding="utf-8")
        except OSError as error:
            raise StateError(
                f"cannot write {self.folder}: {error.strerror or error}; nothing is "
                "answered that is not kept: mend its permissions or free some space"
            ) from error
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield
