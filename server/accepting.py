"""A run whose last rounds did not count is released on a person's word only.

Its rounds are played, its weights are those of an earlier round than its record ends
with: whoever gave the run its number of rounds did not ask for that model.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server import place, runs
from server.launch import Launch
from server.registry import Registry
from vgmedgen.errors import StateError, TooFewSitesError
from vgmedgen.files import write_text
from vgmedgen.trust.journal import Journal

FILE = "accepted.json"  # in a run's folder: after which round its weights are


def void_at_the_end(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records after the last one that counted, oldest first."""
    found = []
    for record in reversed(records):
        if record["counted"]:
            break
        found.append(record)
    return found[::-1]


def check(launch: Launch, registry: Registry) -> None:
    """Refuse a release that nobody has asked for in this form; a simulation has nobody.

    Raises:
        TooFewSitesError: naming the rounds, and how to release all the same.
    """
    records = registry.rounds()
    void = void_at_the_end(records)
    if not void or not launch.coordinator:
        return
    last = len(records) - len(void)
    if _accepted(launch.folder) == last:
        return
    raise TooFewSitesError(f"{told(void, last)}; {_todo(launch.folder)}")


def told(void: Sequence[Mapping[str, Any]], last: int) -> str:
    """What a release would hold, in words."""
    rounds = ", ".join(
        f"round {r['number']}: {len(r['sites'])} of "
        f"{len(r['sites']) + len(r['left_out'])} sites"
        for r in void
    )
    which = "the last round" if len(void) == 1 else f"the last {len(void)} rounds"
    return (
        f"{which} did not count ({rounds}): the release would be what round {last} made"
    )


def pending(folder: Path) -> str:
    """What a person has to decide about the run of `folder`; empty for nothing."""
    try:
        launch, registry = Launch.load(runs.launch_file(folder)), Registry(folder)
        records = registry.rounds()
        if len(records) < launch.config.federation.rounds:
            return ""
        check(launch, registry)
    except TooFewSitesError:
        void = void_at_the_end(records)
        return told(void, len(records) - len(void))
    except StateError:
        return ""  # `status` says what is damaged
    return ""


def accept(folder: Path) -> None:
    """Let the run of `folder` be released as it is; kept in the audit log first.

    Raises:
        StateError: if there is nothing to decide, or it cannot be written.
    """
    if not pending(folder):
        raise StateError(
            f"run {folder.name} has nothing to be released anyway: its last round counted, "
            "or it is not over; start it without --release-anyway"
        )
    records = Registry(folder).rounds()
    last = len(records) - len(void_at_the_end(records))
    journal = Journal(runs.state_of(folder) / place.AUDIT)
    journal.add("release", run=folder.name, round=last, decision="approved")
    write_text(folder / FILE, json.dumps({"after": last}))


def _accepted(folder: Path) -> int | None:
    try:
        found = json.loads((folder / FILE).read_text("utf-8"))
        after: int = found["after"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return after


def _todo(folder: Path) -> str:
    return (
        f"to release that: vgmedgen-server run --name {folder.name} --release-anyway, "
        "with the words that it was started with; else start a new run"
    )
