"""What the rows of a ledger say: their shapes, and how to find them among the rows."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgmedgen.config.ranges import one_of
from vgmedgen.errors import BudgetError, ConfigError, PolicyError, StateError
from vgmedgen.privacy.chain import Row, canonical
from vgmedgen.privacy.cohort import Members, exposures

if TYPE_CHECKING:  # the accountant brings torch: imported where epsilon is computed
    from vgmedgen.privacy.accountant import Mechanism
    from vgmedgen.privacy.budget import History

STAGES = ("align", "generate")
MIXED = "mixed"  # unit of a cohort whose sources do not agree on one: never under DP


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """A data set that the site trains on; the number of its units is public."""

    number: int  # from 1
    unit: str  # patient | lesion | image | mixed
    units: int
    images: int
    opened: str  # first: by itself; command: by the site
    time: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One stage of one round, as it is booked."""

    cohort: int
    run: str
    round: int  # of the run, from 1
    stage: str  # align | generate
    order: str  # digest of what was asked, weights included
    plan: str  # digest
    base: str  # digest
    mechanisms: "tuple[Mechanism, ...] | None"  # None: trained without DP
    clips: tuple[float, ...] = ()  # L2 norms of one unit's gradient
    images: int = 0  # of a unit in a step; 0 without DP
    draws: int = 0  # per image; 0 without DP

    def __post_init__(self) -> None:
        """Check what would make the row meaningless.

        Raises:
            ConfigError: for an unknown stage, or DP without a mechanism.
        """
        one_of("ledger", STAGES, stage=self.stage)
        if self.mechanisms == ():
            raise ConfigError(
                "a stage under DP books at least one mechanism; None is without DP"
            )

    @property
    def facts(self) -> dict[str, Any]:
        """What the row holds."""
        costs: list[list[float]] | None = None
        if self.mechanisms is not None:
            costs = [
                [float(m.noise), float(m.rate), int(m.steps)] for m in self.mechanisms
            ]
        return vars(self) | {"mechanisms": costs, "clips": list(self.clips)}


@dataclass(frozen=True, kw_only=True)
class Booking:
    """A stage that is booked: it may train, and be answered once."""

    number: int  # of its row
    hash: str
    replied: str | None  # sha256 of the outcome that was answered, if any


def of_site(rows: Sequence[Row], site: str, path: Path) -> None:
    """Raise StateError unless the rows at `path` are those of `site`."""
    if rows[0].facts["site"] != site:
        raise StateError(
            f"{path} is the ledger of site '{rows[0].facts['site']}', not of '{site}'; "
            "put this site's own ledger there"
        )


def alive(rows: Sequence[Row], path: Path) -> None:
    """Raise StateError if the ledger at `path` was moved away."""
    if rows[-1].kind == "moved":
        raise StateError(
            f"{path} was exported on {rows[-1].time} and books nothing any more; work "
            "where the export was adopted, or repeat the export to the same place"
        )


def salt(rows: Sequence[Row]) -> str:
    """The ledger's random id."""
    return str(rows[0].facts["ledger"])


def rounds(rows: Sequence[Row]) -> frozenset[tuple[str, int]]:
    """Run and round of all that was booked."""
    return frozenset(
        (str(row.facts["run"]), int(row.facts["round"]))
        for row in rows
        if row.kind == "stage"
    )


def cohorts(rows: Sequence[Row]) -> list[Cohort]:
    """All cohorts, the newest last."""
    return [
        Cohort(
            number=row.facts["cohort"],
            unit=row.facts["unit"],
            units=row.facts["units"],
            images=row.facts["images"],
            opened=row.facts["opened"],
            time=row.time,
        )
        for row in rows
        if row.kind == "cohort"
    ]


def cohort_of(rows: Sequence[Row], number: int | None, path: Path) -> Cohort:
    """Cohort `number`, or the newest; StateError if there is none."""
    known = cohorts(rows)
    found = known[-1:] if number is None else [c for c in known if c.number == number]
    if not found:
        raise StateError(
            f"{path} has no cohort {number or ''}".rstrip()
            + f"; it has {len(known)}, and one is opened before anything is booked"
        )
    return found[0]


def members(
    db: sqlite3.Connection, rows: Sequence[Row], path: Path
) -> dict[int, Members]:
    """Members of every cohort.

    Raises:
        StateError: if a list is not the one that its cohort's row was booked with.
    """
    pairs: dict[int, set[tuple[str, str]]] = {}
    for number, unit, image in db.execute("SELECT * FROM members"):
        pairs.setdefault(number, set()).add((unit, image))
    found = {}
    for row in rows:
        if row.kind == "cohort":
            number = row.facts["cohort"]
            found[number] = Members(frozenset(pairs.pop(number, ())))
            if found[number].digest != row.facts["members"]:
                raise _damaged(path, f"cohort {number} (row {row.number})")
    if pairs:
        raise _damaged(path, f"cohort {min(pairs)}, which has no row,")
    return found


def booked(rows: Sequence[Row], entry: Entry) -> Booking | None:
    """The booking of a stage that is booked already.

    Raises:
        BudgetError: if it was booked with other facts.
    """
    facts = entry.facts
    for row in rows:
        same = all(row.facts.get(k) == facts[k] for k in ("run", "round", "stage"))
        if row.kind != "stage" or not same:
            continue
        if canonical(row.facts) != canonical(facts):
            other = sorted(k for k in facts if row.facts.get(k) != facts[k])
            raise BudgetError(
                f"round {entry.round} ({entry.stage}) of run {entry.run} is booked in row "
                f"{row.number} with another {', '.join(other)}; a second answer to one "
                "round is not paid for: ask for a new round or a new run"
            )
        return Booking(
            number=row.number, hash=row.hash, replied=replied(rows, row.number)
        )
    return None


def replied(rows: Sequence[Row], number: int) -> str | None:
    """sha256 of the outcome that the stage of row `number` was answered with."""
    for row in rows:
        if row.kind == "reply" and row.facts["booking"] == number:
            return str(row.facts["outcome"])
    return None


def allowed(cohort: Cohort, limit: float, delta: float) -> None:
    """Raise PolicyError unless a site's settings can carry a claim at all."""
    if not limit > 0:
        raise PolicyError(
            "the run asks for privacy and this site has set no limit: set privacy.epsilon "
            "in site.yaml to what a unit may spend over all runs"
        )
    if cohort.unit == MIXED:
        raise PolicyError(
            f"cohort {cohort.number} mixes units in one manifest, so that no epsilon could "
            "be told per anything; give all sources the same unit, then open a new cohort"
        )
    if not delta * cohort.units < 1:
        raise PolicyError(
            f"delta {delta:g} is not below 1 / {cohort.units} units of cohort "
            f"{cohort.number}: it would allow to publish one of them whole; lower "
            "privacy.delta in site.yaml"
        )


def everything(rows: Sequence[Row]) -> "History":
    """All that was ever booked, whoever was in it: no unit's history holds more.

    It depends on what was asked of the site, never on whom the site holds, so it may be
    told outside.
    """
    return _history([r.facts["mechanisms"] for r in rows if r.kind == "stage"])


def histories(
    held: dict[int, Members], rows: Sequence[Row], cohort: int
) -> "list[History]":
    """What the units of `cohort` have behind them, one history per kind of unit.

    For the hospital's eyes only: it depends on who was in which cohort.
    """
    stages = [row for row in rows if row.kind == "stage"]
    return [
        _history(
            [r.facts["mechanisms"] for r in stages if r.facts["cohort"] in numbers]
        )
        for numbers in exposures(held, cohort)
    ]


def _history(costs: "Sequence[Sequence[Sequence[float]] | None]") -> "History":
    # brings torch, which a ledger that only books must not wait for
    from vgmedgen.privacy.accountant import Mechanism  # noqa: PLC0415

    found: list[Mechanism] = []
    for cost in costs:
        if cost is None:
            return None
        found += [Mechanism(noise=n, rate=r, steps=int(s)) for n, r, s in cost]
    return tuple(found)


def _damaged(path: Path, what: str) -> StateError:
    return StateError(
        f"{path} is damaged: the members of {what} were changed after they were "
        "written; put the ledger and its head back from a backup of the same moment"
    )
