"""What a site has answered, so that nothing is asked of it twice in two ways.

A run moves forward only: an order for a round that the site has left behind, another
order for one that it has answered, or training after the release, is refused. Without
this a hostile server could have the same patients trained on again and again, each time
from weights of its choice, and compare the answers.

```text
turns/<run>.json  {"run": …, "answered": {"train": {"round": 3, "digest": …}, …},
                   "days": {"1": "2026-11-21", …}}
```
"""

from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from client.request import Request
from client.runfiles import RunFiles
from vgmedgen.errors import ReplayError
from vgmedgen.exchange.wire import Kind

FOLDER = "turns"
_SLACK_S = 7200  # clocks are put back on some days
_NAMES = {Kind.TRAIN: "train", Kind.EVALUATE: "evaluate", Kind.INSTALL: "install"}


class Turns:
    """The furthest order of each kind that a site has answered, run by run."""

    def __init__(self, site: Path) -> None:
        self._files = RunFiles(site / FOLDER)

    def repeats(self, request: Request) -> bool:
        """Whether this very order was answered before.

        Raises:
            StateError: if what was answered cannot be read.
        """
        before = self._answered(request.run).get(_NAMES[request.kind], {})
        return bool(before.get("digest") == request.digest)

    def check(self, request: Request) -> bool:
        """Accept an order that goes forward, or the very one that was answered last.

        Returns:
            Whether it was answered before.

        Raises:
            ReplayError: for an order that the site has left behind, or that is another
                for a round it has answered.
            StateError: if what was answered cannot be read.
        """
        return _judged(request, self._answered(request.run))

    def record(self, request: Request, today: date) -> None:
        """Keep that an order was answered; its answer leaves after this, or never.

        Raises:
            ReplayError: if another order was answered in the meantime.
            StateError: if it cannot be kept.
        """
        with self._files.locked():
            kept = self._files.read(request.run) or {}
            answered = dict(kept.get("answered", {}))
            if _judged(request, answered):
                return
            answered[_NAMES[request.kind]] = {
                "round": request.number,
                "digest": request.digest,
            }
            days = dict(kept.get("days", {}))
            if request.kind is Kind.TRAIN:
                days.setdefault(str(request.number), today.isoformat())
            self._files.write(request.run, {"answered": answered, "days": days})

    def trained(self, run: str, number: int, today: date) -> None:
        """Keep that a round was trained although nothing was answered.

        Raises:
            StateError: if it cannot be kept.
        """
        with self._files.locked():
            kept = self._files.read(run) or {}
            days = {**kept.get("days", {}), str(number): today.isoformat()}
            answered = kept.get("answered", {})
            self._files.write(run, {"answered": answered, "days": days})

    def of_day(self, today: datetime) -> frozenset[tuple[str, int]]:
        """Run and round of everything that was trained on a day of the site's clock.

        Raises:
            StateError: if what was answered cannot be read.
        """
        midnight = datetime.combine(today.date(), time(), today.tzinfo).timestamp()
        found: set[tuple[str, int]] = set()
        for run in self._files.runs():
            # spares reading the files of all runs there ever were
            if self._files.path(run).stat().st_mtime < midnight - _SLACK_S:
                continue
            days = (self._files.read(run) or {}).get("days", {})
            found |= {
                (run, int(number))
                for number, day in days.items()
                if day == today.date().isoformat()
            }
        return frozenset(found)

    def rounds(self) -> dict[str, int]:
        """Number of rounds that trained here, by run.

        Raises:
            StateError: if what was answered cannot be read.
        """
        return {
            run: len((self._files.read(run) or {}).get("days", {}))
            for run in self._files.runs()
        }

    def ended(self, run: str) -> bool:
        """Whether the site has installed the run's release."""
        return _NAMES[Kind.INSTALL] in self._answered(run)

    def _answered(self, run: str) -> dict[str, Any]:
        return dict((self._files.read(run) or {}).get("answered", {}))


def _judged(request: Request, answered: dict[str, Any]) -> bool:
    """Whether the order was answered before; raises ReplayError if it may not be."""
    kind, run = _NAMES[request.kind], request.run
    if request.kind is not Kind.INSTALL and _NAMES[Kind.INSTALL] in answered:
        raise ReplayError(
            f"run {run} asks to {kind} in round {request.number}, but this site has "
            "installed its release: the run is over; start another"
        )
    furthest = max((int(one["round"]) for one in answered.values()), default=0)
    if request.number < furthest:
        raise ReplayError(
            f"run {run} asks to {kind} in round {request.number}, but this site has "
            f"answered round {furthest}; a run only goes forward"
        )
    before = answered.get(kind)
    if before is None or int(before["round"]) != request.number:
        return False
    if before["digest"] != request.digest:
        raise ReplayError(
            f"run {run} asks to {kind} in round {request.number} otherwise than before; "
            "a round is answered once, and again only to the very same order"
        )
    return True
