"""What is spent, whether a run still fits, and what would fit if it does not.

A unit's history is a tuple of mechanisms, or None if it was ever trained on without DP.
Units of one cohort can have different histories; the worst of them counts.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from vgmedgen.privacy import accountant
from vgmedgen.privacy.accountant import Mechanism, Spent, bound, merged

History = tuple[Mechanism, ...] | None

WITHOUT_DP = Spent(epsilon=math.inf, accountant="none")
MOST_FACTOR = 100.0  # noise beyond this many times the asked one trains nothing
PLACES = 128  # of the search for noise, each 3.7 % apart
TRIES = 8  # of the slow accountant on a search's answer


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What stands beside every epsilon of a site; without it a number says nothing."""

    unit: str  # patient | lesion | image
    delta: float
    cohort: int = 0  # on whose units; 0: all that was ever booked, whoever was in it

    @property
    def scope(self) -> str:
        """Over what the epsilon is, in words."""
        if self.cohort:
            return f"all runs of this site on units of cohort {self.cohort}"
        return "all that this site ever booked, whoever was in it"

    def told(self, found: Spent) -> str:
        """An epsilon in words, with unit, delta, accountant and scope."""
        if found.epsilon == math.inf:
            return (
                f"no bound ({self.unit}-level, {self.scope}: some of it was without DP)"
            )
        return (
            f"epsilon {rounded(found.epsilon)} ({self.unit}-level, delta {self.delta:g}, "
            f"accountant {found.accountant}, {self.scope})"
        )


@dataclass(frozen=True, kw_only=True)
class Room:
    """The largest part of a run that still fits a limit."""

    steps: int  # of the run at the asked noise, all trainings shortened alike
    asked: int  # steps of the run
    factor: float  # least factor on the noise at all steps; inf: none up to 100

    def told(self) -> str:
        """What would fit, in words."""
        parts = []
        if self.steps:
            parts.append(f"{self.steps} of its {self.asked} steps at this noise")
        if math.isfinite(self.factor):
            parts.append(f"all its steps at {self.factor:.2f} times the noise")
        return " or ".join(parts) if parts else "nothing"


def spent(mechanisms: Sequence[Mechanism], delta: float) -> Spent:
    """`accountant.spent`, remembered: a refusal asks for the same sums again."""
    return _spent(tuple(merged(mechanisms)), delta)


@lru_cache(maxsize=256)
def _spent(history: tuple[Mechanism, ...], delta: float) -> Spent:
    return accountant.spent(history, delta)


def total(
    histories: Sequence[History], delta: float, more: Sequence[Mechanism] = ()
) -> Spent:
    """Epsilon of the worst history, with `more` on top of each.

    Args:
        histories: one per kind of unit; none is like one that is empty.
        delta: at which epsilon is told.
        more: mechanisms that are not booked yet.
    """
    found = [
        WITHOUT_DP if one is None else spent([*one, *more], delta)
        for one in histories or [()]
    ]
    return max(found, key=lambda one: one.epsilon)


def fits(
    histories: Sequence[History],
    delta: float,
    more: Sequence[Mechanism],
    limit: float,
) -> bool:
    """Whether every history with `more` on top stays within `limit`."""
    for one in histories or [()]:
        if one is None:
            return False
        # the quick bound is never below the exact one, so it can only be too careful
        both = [*one, *more]
        if bound(both, delta) > limit and spent(both, delta).epsilon > limit:
            return False
    return True


def room(
    histories: Sequence[History],
    delta: float,
    more: Sequence[Mechanism],
    limit: float,
) -> Room:
    """Search for the largest part of `more` that fits, and for the noise that would.

    What it names fits, and may fall a few percent short of the most that would: the
    search goes by the quick bound, made about as tight as the slow one was for the
    whole, and only its answer is checked by the slow one.
    """
    run = merged(more)
    asked = max((one.steps for one in run), default=0)
    if not run or None in histories:
        return Room(steps=0, asked=0, factor=math.inf)
    known = [one for one in histories or [()] if one is not None]
    ratio = total(known, delta, run).epsilon / _quick(known, delta, run)

    def cut(place: int) -> list[Mechanism]:
        """The run with all trainings shortened alike, the longest to `place` steps."""
        return [replace(one, steps=one.steps * place // asked or 1) for one in run]

    def louder(place: int) -> list[Mechanism]:
        factor = MOST_FACTOR ** (1 - place / PLACES)
        return [replace(one, noise=one.noise * factor) for one in run]

    def last(part: Callable[[int], list[Mechanism]], places: int) -> int:
        """The last place from 1 whose part fits, as far as tried; 0 if none does."""
        found = bisect_right(
            range(1, places + 1),
            limit,
            key=lambda place: ratio * _quick(known, delta, part(place)),
        )
        for _ in range(TRIES):
            if found < 1 or fits(known, delta, part(found), limit):
                return max(0, found)
            found -= max(1, found // 20)
        return 0

    steps, place = last(cut, asked), last(louder, PLACES)
    return Room(
        steps=sum(one.steps for one in cut(steps)) if steps else 0,
        asked=sum(one.steps for one in run),
        factor=MOST_FACTOR ** (1 - place / PLACES) if place else math.inf,
    )


def _quick(
    histories: Sequence[tuple[Mechanism, ...]], delta: float, more: Sequence[Mechanism]
) -> float:
    return max(bound([*one, *more], delta) for one in histories)


def refusal(
    histories: Sequence[History],
    claim: Claim,
    more: Sequence[Mechanism],
    limit: float,
) -> str:
    """Why a run is refused, with the numbers and what would fit; one line."""
    before = total(histories, claim.delta)
    if before.epsilon == math.inf:
        return (
            "this site trained without DP before, so no epsilon holds here and the limit "
            f"of {limit:g} cannot be kept; give patients that were never trained on a site "
            "folder of their own, or set privacy.epsilon in site.yaml to 0 and go without "
            "a claim"
        )
    alone, after = spent(more, claim.delta), total(histories, claim.delta, more)
    return (
        f"the run needs epsilon {rounded(alone.epsilon)}, {rounded(before.epsilon)} is "
        f"booked, together {rounded(after.epsilon)} of the limit {limit:g} "
        f"({claim.unit}-level, delta {claim.delta:g}, accountant {after.accountant}, "
        f"{claim.scope}); what would fit: "
        f"{room(histories, claim.delta, more, limit).told()}; ask for a smaller run, or "
        "raise privacy.epsilon in site.yaml"
    )


def rounded(epsilon: float) -> str:
    """An epsilon for a person, rounded up so that the claim stays true."""
    if not math.isfinite(epsilon):
        return "without bound"
    return f"{math.ceil(epsilon * 1000 - 1e-9) / 1000:g}"
