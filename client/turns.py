"""What a site has worked on, so that nothing is asked of it twice in two ways.

A run moves forward only: an order for a round that the site has left behind, another
order for one that it has begun, the loss of a round that it did not train, or training
after the release, is refused. Without this a hostile server could have the same patients
trained on again and again, each time from weights of its choice, and compare the answers.

```text
turns/<run>.json  {"run": …, "days": {"1": "2026-11-21", …},
                   "orders": {"train": {"round": 3, "digest": …, "answered": true}, …}}
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
    """The furthest order of each kind that a site has begun, run by run."""

    def __init__(self, site: Path) -> None:
        self._files = RunFiles(site / FOLDER)

    def repeats(self, request: Request) -> bool:
        """Whether this very order was answered before.

        Raises:
            StateError: if what was answered cannot be read.
        """
        before = self._orders(request.run).get(_NAMES[request.kind], {})
        return bool(before.get("digest") == request.digest and before["answered"])

    def check(self, request: Request) -> bool:
        """Accept an order that goes forward, or the very one that came last.

        Returns:
            Whether it was answered before.

        Raises:
            ReplayError: for an order that the site has left behind, or that is another
                for a round it has begun.
            StateError: if what was answered cannot be read.
        """
        return _judged(request, self._orders(request.run))

    def begin(self, request: Request, today: date) -> None:
        """Keep that an order is worked on: no other one will be for its round.

        Also a round that fails is used up by it, or a server could try the patients with
        weights of its choice as often as it likes. A release that does not install is
        not: the right one may follow.

        Raises:
            ReplayError: if another order was begun in the meantime.
            StateError: if it cannot be kept.
        """
        if request.kind is not Kind.INSTALL:
            self._keep(request, answered=False, today=today)

    def record(self, request: Request) -> None:
        """Keep that an order was answered; its answer leaves after this, or never.

        Raises:
            ReplayError: if another order was begun in the meantime.
            StateError: if it cannot be kept.
        """
        self._keep(request, answered=True, today=None)

    def _keep(self, request: Request, *, answered: bool, today: date | None) -> None:
        with self._files.locked():
            kept = self._files.read(request.run) or {}
            orders = dict(kept.get("orders", {}))
            if _judged(request, orders):
                return
            orders[_NAMES[request.kind]] = {
                "round": request.number,
                "digest": request.digest,
                "answered": answered,
            }
            days = dict(kept.get("days", {}))
            if request.kind is Kind.TRAIN and today is not None:
                days.setdefault(str(request.number), today.isoformat())
            self._files.write(request.run, {"orders": orders, "days": days})

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

    def answered(self) -> dict[str, int]:
        """The last round of each run whose training was answered.

        Raises:
            StateError: if what was answered cannot be read.
        """
        trained = {run: self._orders(run).get("train") for run in self._files.runs()}
        return {
            run: int(one["round"])
            for run, one in trained.items()
            if one is not None and one["answered"]
        }

    def ended(self, run: str) -> bool:
        """Whether the site has installed the run's release."""
        return _NAMES[Kind.INSTALL] in self._orders(run)

    def _orders(self, run: str) -> dict[str, Any]:
        return dict((self._files.read(run) or {}).get("orders", {}))


def _judged(request: Request, orders: dict[str, Any]) -> bool:
    """Whether the order was answered before; raises ReplayError if it may not be."""
    kind, run = _NAMES[request.kind], request.run
    if request.kind is not Kind.INSTALL and _NAMES[Kind.INSTALL] in orders:
        raise ReplayError(
            f"run {run} asks to {kind} in round {request.number}, but this site has "
            "installed its release: the run is over; start another"
        )
    furthest = max((int(one["round"]) for one in orders.values()), default=0)
    if request.number < furthest:
        raise ReplayError(
            f"run {run} asks to {kind} in round {request.number}, but this site has "
            f"begun round {furthest}; a run only goes forward"
        )
    trained = int(orders.get(_NAMES[Kind.TRAIN], {"round": 0})["round"])
    if request.kind is Kind.EVALUATE and trained != request.number:
        raise ReplayError(
            f"run {run} asks for the held-out loss of round {request.number}, in which "
            "this site has trained nothing; a loss is told after the round's training only"
        )
    before = orders.get(kind)
    if before is None or int(before["round"]) != request.number:
        return False
    if before["digest"] != request.digest:
        raise ReplayError(
            f"run {run} asks to {kind} in round {request.number} otherwise than before; "
            "a round is worked on once, and again only for the very same order"
        )
    return bool(before["answered"])
