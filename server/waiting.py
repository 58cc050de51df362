"""Whom a run waits for, and until when: one rule, and what it comes to now.

Before round 1 a run waits until each of its sites has joined or refused; a site that is
offline, or whose hospital has not decided about the run yet, has done neither. A run that
is taken up again waits for the sites of its last round in the same way, but shorter. In
either case it goes on at the end of that time with those that are there, if there are
enough; any other round begins as soon as there are enough, and whoever comes later joins
at the next one.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from server.words import how_long
from vgmedgen.codes import meaning
from vgmedgen.config.run import FederationConfig
from vgmedgen.errors import ApprovalError
from vgmedgen.files import write_text

FILE = "waiting.json"  # in a run's folder, while it waits
UNDECIDED = frozenset({ApprovalError.code})  # codes of sites that have not refused


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What keeps a run from its next round."""

    sites: Mapping[str, str]  # site -> code of why it is not in yet
    here: int  # sites that are in
    fewest: int  # without which no round counts
    until: str  # ISO 8601, UTC

    @classmethod
    def made(
        cls, sites: Mapping[str, str], *, here: int, fewest: int, left_s: float
    ) -> Self:
        """What is waited for during the next `left_s` seconds."""
        until = datetime.now(UTC) + timedelta(seconds=left_s)
        return cls(
            sites=dict(sorted(sites.items())),
            here=here,
            fewest=fewest,
            until=until.isoformat(timespec="minutes"),
        )

    @property
    def line(self) -> str:
        """In words, with what happens then."""
        named = ", ".join(f"{site} ({_why(code)})" for site, code in self.sites.items())
        missing = self.fewest - self.here
        if missing > 0:
            told = f"{missing} more of the {self.fewest} sites that a round needs"
            named = f"{told}: {named}" if named else told
            then = "then it fails, and goes on when it is started again"
        else:
            then = f"then it goes on with the {self.here} that are in"
        end = self.until[:16].replace("T", " ")
        return f"waits for {named}; until {end} UTC, {then}"


def keep(folder: Path, waiting: Waiting | None) -> None:
    """Keep what the run of `folder` waits for; None where it does not wait.

    Raises:
        StateError: if that cannot be written.
    """
    if waiting is None:
        (folder / FILE).unlink(missing_ok=True)
    else:
        write_text(folder / FILE, json.dumps(asdict(waiting)))


def read(folder: Path) -> Waiting | None:
    """What the run of `folder` waits for; None where it does not, or nobody can tell."""
    try:
        told = json.loads((folder / FILE).read_text("utf-8"))
        found = Waiting(**told)
        datetime.fromisoformat(found.until)
        words = all(isinstance(w, str) for part in found.sites.items() for w in part)
        whole = words and isinstance(found.here, int) and isinstance(found.fewest, int)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return found if whole else None


def rule(federation: FederationConfig, sites: int) -> str:
    """The rule for one run, in a sentence or two, as `run` tells it."""
    return (
        f"before round 1 it waits until each of its {sites} sites has joined or refused, "
        f"approvals included, for {how_long(federation.wait_s)} at the most "
        "(federation.wait_s), then goes on with those that are in, if they are "
        f"{federation.min_sites} or more; later rounds wait for {federation.min_sites} "
        "only, and whoever comes later joins at the next one"
    )


def _why(code: str) -> str:
    words = {"offline": "offline", "late": "online, has not answered yet"}
    return words.get(code) or f"{code}: {meaning(code)}"
