"""Whether a stage may be booked: one judgement, for the ledger and for a dry run alike.

It looks at the plan, at what `site.yaml` sets and at all rows that were ever booked at
the site, never at who was in which cohort. A refusal crosses the wall, and so does the
epsilon beside an answer: if either hung on whether old patients are among the new ones,
it would tell exactly that of one of them, with certainty, under a claim of privacy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vgmedgen.errors import BudgetError, StateError
from vgmedgen.privacy import facts
from vgmedgen.privacy.chain import Row
from vgmedgen.privacy.facts import Booking, Cohort, Entry

if TYPE_CHECKING:  # the accountant brings torch: imported where epsilon is computed
    from vgmedgen.privacy.accountant import Mechanism


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A stage that asks to be booked, and the hospital's terms."""

    entry: Entry
    limit: float  # epsilon that this site allows over all its runs; 0: none was set
    delta: float  # at which epsilon is counted
    ahead: "Sequence[Mechanism]" = ()  # the rest of the run after this stage

    @property
    def more(self) -> "tuple[Mechanism, ...]":
        """What this stage and the rest of its run will cost."""
        return (*(self.entry.mechanisms or ()), *self.ahead)


def decide(rows: Sequence[Row], cohort: Cohort, asked: Asked) -> Booking | bool:
    """The booking that the stage has already; else whether it fits the limit.

    Args:
        rows: all of the ledger; none where there is no ledger yet.
        cohort: that would train; of it only the kind and number of its units count.
        asked: the stage and the terms.

    Raises:
        BudgetError: if the round is booked otherwise, or has no DP under a limit.
        PolicyError: if the terms can carry no claim.
        StateError: if the stage is of another cohort.
    """
    entry, limit = asked.entry, asked.limit
    if known := facts.booked(rows, entry):
        return known
    if entry.cohort != cohort.number:
        raise StateError(
            f"cohort {entry.cohort} is not the newest of the ledger, which is "
            f"{cohort.number}; read the data again, then start again"
        )
    if entry.mechanisms is None:
        if limit > 0:
            raise BudgetError(
                f"run {entry.run} trains without DP, which has no epsilon at all; "
                f"the site's limit is {limit:g} per {cohort.unit}; join runs with "
                "privacy.enabled, or set privacy.epsilon in site.yaml to 0"
            )
        return True
    facts.allowed(cohort, limit, asked.delta)
    from vgmedgen.privacy import budget  # noqa: PLC0415  # brings torch

    return budget.fits([facts.everything(rows)], asked.delta, asked.more, limit)


def refusal(rows: Sequence[Row], cohort: Cohort, asked: Asked) -> BudgetError:
    """Why a stage does not fit; searching for what would takes seconds."""
    from vgmedgen.privacy import budget  # noqa: PLC0415  # brings torch

    claim = budget.Claim(unit=cohort.unit, delta=asked.delta)
    before = [facts.everything(rows)]
    return BudgetError(budget.refusal(before, claim, asked.more, asked.limit))
