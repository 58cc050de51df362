"""Whether a site's own records agree on what was trained here: ledger, turns, audit log.

A whole but older copy of the ledger passes every check of its own, and what it lacks would
be spent twice. What was answered stands in two more places, and all three have to agree.
"""

from collections.abc import Collection
from pathlib import Path

from client.runfiles import AUDIT
from client.turns import FOLDER, Turns
from vgmedgen.errors import StateError
from vgmedgen.exchange.wire import Kind
from vgmedgen.trust.journal import Journal


def answered(folder: Path) -> dict[tuple[str, int], str]:
    """Run and round of every training that was answered, and the file that says so.

    Raises:
        StateError: if a record cannot be read.
    """
    found = {
        (str(entry["run"]), int(entry["round"])): AUDIT
        for entry in Journal(folder / AUDIT).entries()
        if (entry["event"], entry.get("kind")) == ("out", str(Kind.TRAIN))
        and entry.get("decision") == "sent"
    }
    last = Turns(folder).answered()
    return {
        (run, number): f"{FOLDER}/{run}.json" for run, number in last.items()
    } | found


def check(folder: Path, booked: Collection[tuple[str, int]]) -> None:
    """Refuse a ledger that does not know a round that was answered from here.

    Args:
        folder: of the site.
        booked: run and round of all that the ledger holds.

    Raises:
        StateError: naming the first such round, and what says that it was answered.
    """
    lost = {one: where for one, where in answered(folder).items() if one not in booked}
    for (run, number), where in sorted(lost.items()):
        raise StateError(
            f"round {number} of run {run} was answered from {folder}, as {where} says, and "
            f"the ledger does not know it ({len(lost)} such round"
            f"{'s' * (len(lost) > 1)}): it is an older copy or a new one; put the latest "
            "ledger.sqlite and ledger.head back, nothing trains here without them"
        )
