"""A site's ledger: what was trained on whom, booked before it happens.

Rows are facts (noise, rate, steps, cohort, run, round, digests), never an epsilon: that
is computed by replaying all rows of all cohorts that a unit was in. A stage is booked
and on disk before it trains, so a crash can only over-count; a round is booked once, so
its answer can be sent again but no second one can be computed.

Kinds of rows and their facts (`to_json` prints them, one line each):

```text
open     format, site, ledger (random id, salt of the members' hashes)
cohort   cohort, unit, units, images, members (digest of the list), opened
stage    cohort, run, round, stage, order, plan, base, mechanisms, clips, images, draws
         mechanisms: [[noise, rate, steps], ...], or null where there is no DP
reply    booking (number of the stage row), outcome (sha256 of what was answered)
moved    to (digest of the export's path); nothing is booked after it
adopted  to (digest of the new folder)
```

A line also holds number, kind, time and previous; hash is the sha256 of the previous hash
followed by the JSON of facts, kind, number and time with sorted keys and no spaces.
"""

import fcntl
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vgmedgen.config.plan import UNITS
from vgmedgen.config.ranges import one_of, positive, within
from vgmedgen.errors import PolicyError, StateError
from vgmedgen.privacy import decision, facts, moving
from vgmedgen.privacy.chain import Chain, Row
from vgmedgen.privacy.cohort import Members
from vgmedgen.privacy.decision import Asked
from vgmedgen.privacy.facts import Booking, Cohort, Entry

if TYPE_CHECKING:  # the accountant brings torch: imported where epsilon is computed
    from vgmedgen.privacy.accountant import Mechanism, Spent
    from vgmedgen.privacy.budget import History

__all__ = ["Booking", "Cohort", "Entry", "Ledger"]

FORMAT = 1
FILE = "ledger.sqlite"


class Ledger:
    """The ledger of one site's folder; safe to share between threads."""

    def __init__(self, folder: Path, site: str) -> None:
        self.folder, self.site = folder, site
        self.path = folder / FILE
        self.chain = Chain(self.path)

    @classmethod
    def open(cls, folder: Path, site: str) -> "Ledger":
        """Open and verify a ledger to book on.

        Raises:
            StateError: if it is missing, damaged, of another site, or moved away.
        """
        ledger = cls.read(folder, site)
        ledger.chain.advance()  # catch up after a crash between a row and its head
        facts.alive(ledger.rows(), ledger.path)
        return ledger

    @classmethod
    def read(cls, folder: Path, site: str) -> "Ledger":
        """Open and verify a ledger to look at, or to repeat an export.

        Raises:
            StateError: if it is missing, damaged, or of another site.
        """
        ledger = cls(folder, site)
        if not (ledger.chain.begun and ledger.path.is_file()):
            raise StateError(
                f"there is no {ledger.path}; a site that never trained gets it with its "
                f"first round or by 'vgmedgen-client ledger cohort {folder}', any other "
                "has to put it back or adopt an export"
            )
        ledger.verify()
        return ledger

    @classmethod
    def create(cls, folder: Path, site: str) -> "Ledger":
        """Begin a ledger in a folder where nothing was ever trained.

        Raises:
            StateError: if there is a ledger, or a round that no ledger knows.
        """
        if not cls._begin(folder, site):
            raise StateError(f"{folder} has a ledger already; nothing was changed")
        return cls.open(folder, site)

    @classmethod
    def at(cls, folder: Path, site: str) -> "Ledger":
        """Open the ledger, or begin it where there is none and nothing was trained.

        Raises:
            StateError: as of `open` and `create`.
        """
        cls._begin(folder, site)
        return cls.open(folder, site)

    @classmethod
    def at_hand(cls, folder: Path, site: str) -> "Ledger | None":
        """The ledger to look at, or None where nothing was ever trained nor booked.

        Raises:
            StateError: as of `open` and `create`; nothing is begun or written.
        """
        if cls(folder, site).chain.begun:
            ledger = cls.read(folder, site)
            facts.alive(ledger.rows(), ledger.path)
            return ledger
        cls._refuse_trained(folder)
        return None

    @classmethod
    def adopt(cls, path: Path, folder: Path, site: str) -> "Ledger":
        """Install the export `path` in a new folder (see `moving.bring`)."""
        moving.bring(Chain(path, headless=True), Chain(folder / FILE), site)
        return cls.open(folder, site)

    def export(self, path: Path) -> None:
        """Move the ledger out to the file `path` (see `moving.take`)."""
        with self.working():
            moving.take(self.chain, path)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the site for the whole of a stage's training; a kill lets go of it.

        Raises:
            StateError: at once, if another process or thread holds it.
        """
        path = self.folder / "ledger.lock"
        try:
            stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise StateError(f"cannot open {path}: {error.strerror}") from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StateError(
                    f"{self.path} is in use by another process that trains; wait "
                    "for it, then start again"
                ) from error
            yield

    def cohort_for(self, units: Mapping[str, Sequence[str]], unit_kind: str) -> int:
        """The newest cohort, if it is of exactly these members; the first opens itself.

        Args:
            units: unit -> digests of its image files.
            unit_kind: patient, lesion or image; mixed cannot train under DP.

        Raises:
            PolicyError: if the data changed since the cohort was opened.
        """
        found = self.cohort_of(units, unit_kind)
        if found is not None:
            return found.number
        return self._open_cohort(units, unit_kind, "first")

    def cohort_of(
        self, units: Mapping[str, Sequence[str]], unit_kind: str
    ) -> Cohort | None:
        """The newest cohort, if it is of exactly these members; None before the first.

        Raises:
            PolicyError: if the data changed since the cohort was opened.
        """
        with self.chain.reading() as (db, rows):
            cohorts = facts.cohorts(rows)
            if not cohorts:
                return None
            newest = cohorts[-1]
            held = facts.members(db, rows, self.path)[newest.number]
            now = Members.of(units, facts.salt(rows))
            if (held, newest.unit) == (now, unit_kind):
                return newest
            raise PolicyError(
                f"the data of {self.site} are not those of cohort {newest.number}: "
                f"{held.changes(now)} (unit {newest.unit}, now {unit_kind}); restore "
                "them, or open a new cohort, which keeps what every unit spent: "
                f"vgmedgen-client ledger cohort {self.folder}"
            )

    def open_cohort(self, units: Mapping[str, Sequence[str]], unit_kind: str) -> int:
        """Open a cohort of these members; the newest one, if it has the same.

        Units and images that earlier cohorts held keep what they spent.
        """
        return self._open_cohort(units, unit_kind, "command")

    def book(
        self,
        entry: Entry,
        *,
        limit: float,
        delta: float,
        ahead: "Sequence[Mechanism]" = (),
    ) -> Booking:
        """Book a stage before it trains; the same stage again gives the same booking.

        Args:
            entry: what is about to train.
            limit: epsilon that this site allows over all its runs, whoever is in them;
                0: none was set, and then only training without DP can be booked.
            delta: at which epsilon is computed.
            ahead: the rest of the run after this stage: a run is refused before it
                starts, not when it has spent.

        Raises:
            BudgetError: if the run does not fit, or the round is booked otherwise.
            PolicyError: if the site set no limit, or delta is 1 / units or above.
            StateError: if the ledger cannot be written, or the cohort is not the newest.
        """
        within("privacy", 0, sys.float_info.max, epsilon=limit)
        positive("privacy", delta=delta)
        asked = Asked(entry=entry, limit=limit, delta=delta, ahead=ahead)
        with self.chain.writing() as (db, rows):
            facts.alive(rows, self.path)
            cohort = facts.cohort_of(rows, None, self.path)
            found = decision.decide(rows, cohort, asked)
            if isinstance(found, Booking):
                return found
            if found:
                row = self.chain.append(db, rows, "stage", entry.facts)
                return Booking(number=row.number, hash=row.hash, replied=None)
        # the search for what would fit takes seconds: not while others wait to book
        raise decision.refusal(rows, cohort, asked)

    def reply(self, booking: Booking, outcome_sha256: str) -> None:
        """Book that an outcome is on disk and about to leave; the same again is nothing.

        Raises:
            StateError: if the round was answered with another outcome, or the booking is
                not of this ledger.
        """
        with self.chain.writing() as (db, rows):
            facts.alive(rows, self.path)
            number = booking.number
            if not (0 < number <= len(rows) and rows[number - 1].hash == booking.hash):
                raise StateError(f"{self.path} has no booking {number} like this")
            before = facts.replied(rows, number)
            if before is None:
                told = {"booking": number, "outcome": outcome_sha256}
                self.chain.append(db, rows, "reply", told)
            elif before != outcome_sha256:
                raise StateError(
                    f"the round of row {number} of {self.path} was answered with "
                    "another outcome; a second answer is not paid for and does not leave"
                )

    def spent(self, *, delta: float, ahead: "Sequence[Mechanism]" = ()) -> "Spent":
        """Epsilon of all that was ever booked here, whoever was in it.

        No unit has spent more. It is what may be told outside, and what the site's limit
        is held against: it does not depend on whom the site holds. Rows that were booked
        and never answered count. After training without DP epsilon is infinite and the
        accountant is "none".
        """
        from vgmedgen.privacy import budget  # noqa: PLC0415  # brings torch

        return budget.total([facts.everything(self.rows())], delta, ahead)

    def worst_unit(self, cohort: int | None = None, *, delta: float) -> "Spent":
        """Epsilon of the unit that has spent most, of the newest or the given cohort.

        For the hospital's eyes only: it tells whether units of an earlier cohort are
        among those of this one.
        """
        from vgmedgen.privacy import budget  # noqa: PLC0415  # brings torch

        return budget.total(self.histories(cohort), delta)

    def histories(self, cohort: int | None = None) -> "list[History]":
        """What the units of a cohort have behind them; for the hospital's eyes only."""
        with self.chain.reading() as (db, rows):
            if not facts.cohorts(rows):
                return []
            number = facts.cohort_of(rows, cohort, self.path).number
            held = facts.members(db, rows, self.path)
            return facts.histories(held, rows, number)

    def cohorts(self) -> list[Cohort]:
        """All cohorts, the newest last."""
        return facts.cohorts(self.rows())

    def rows(self) -> list[Row]:
        """All rows, the chain verified."""
        return self.chain.read()

    def verify(self) -> list[Row]:
        """Check every row, the head, and every cohort's list of members.

        Raises:
            StateError: naming what is not as it was written.
        """
        with self.chain.reading() as (db, rows):
            facts.of_site(rows, self.site, self.path)
            facts.members(db, rows, self.path)
            return rows

    def to_json(self) -> str:
        """All facts as JSON lines, for an accountant of one's own choice."""
        return "".join(f"{row.to_json()}\n" for row in self.rows())

    @classmethod
    def _begin(cls, folder: Path, site: str) -> bool:
        chain = Chain(folder / FILE)
        if chain.begun:
            return False
        cls._refuse_trained(folder)
        return chain.begin(
            {"format": FORMAT, "site": site, "ledger": secrets.token_hex(16)}
        )

    @staticmethod
    def _refuse_trained(folder: Path) -> None:
        if trained := sorted((folder / "runs").glob("*/round-*")):
            raise StateError(
                f"{trained[0]} was trained and there is no {folder / FILE}: a new ledger "
                "would say that nothing was spent; put the old one back, or adopt an "
                "export of it"
            )

    def _open_cohort(
        self, units: Mapping[str, Sequence[str]], unit_kind: str, opened: str
    ) -> int:
        one_of("ledger", (*UNITS, facts.MIXED), unit=unit_kind)
        with self.chain.writing() as (db, rows):
            facts.alive(rows, self.path)
            now, cohorts = Members.of(units, facts.salt(rows)), facts.cohorts(rows)
            if cohorts:
                newest = cohorts[-1]
                held = facts.members(db, rows, self.path)[newest.number]
                if (held, newest.unit) == (now, unit_kind):
                    return newest.number
            number = len(cohorts) + 1
            told = {
                "cohort": number,
                "unit": unit_kind,
                "units": len(now.units),
                "images": len(now.images),
                "members": now.digest,
                "opened": opened,
            }
            self.chain.append(db, rows, "cohort", told)
            db.executemany(
                "INSERT INTO members VALUES (?, ?, ?)",
                ((number, unit, image) for unit, image in sorted(now.pairs)),
            )
            return number
