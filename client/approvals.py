"""What runs ask of a site, and what its data officer decided about exactly that.

An approval is of a plan, an exchange schema, a base bundle and a coordinator together: a
run that changes any of them waits again. Nothing that was asked or decided is ever taken
out of the file.

```text
approvals/<run>.json  {"run": …, "asks": [{"plan": …, "plan-digest": …, …}, …],
                       "decisions": [{"decision": "approved", "ask": …, "by": …, …}]}
```
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from client.request import Request
from client.runfiles import RunFiles
from vgmedgen.config.ranges import digest_of
from vgmedgen.errors import ApprovalError, PolicyError
from vgmedgen.exchange.schema import PROTOCOL

FOLDER = "approvals"
MOST_WAITING = 100  # runs; a hostile server must not fill the hospital's disk
MOST_ASKS = 20  # of one run
APPROVED, DENIED, WAITING = "approved", "denied", "waiting"
_SAID = ("plan", "plan-digest", "exchange", "base", "coordinator")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a run asks for."""

    run: str
    said: Mapping[str, str]  # its words
    at: str  # when it first asked, ISO 8601, UTC

    @property
    def key(self) -> str:
        """Digest of what a decision is about."""
        return _key(self.said)

    @property
    def words(self) -> dict[str, str]:
        """As a message of the run would carry them."""
        return {"protocol": PROTOCOL, "run": self.run, **self.said}


@dataclass(frozen=True, kw_only=True)
class File:
    """Everything about one run."""

    run: str
    asks: tuple[Ask, ...] = ()  # the newest last
    decisions: tuple[Mapping[str, str], ...] = ()

    @property
    def denied(self) -> bool:
        """Whether the run is denied, whatever it asks for."""
        return bool(self.decisions) and self.decisions[-1]["decision"] == DENIED

    @property
    def approved(self) -> frozenset[str]:
        """Keys of the asks that are approved: since the last denial, which ends all."""
        keys: set[str] = set()
        for one in self.decisions:
            keys = keys | {one["ask"]} if one["decision"] == APPROVED else set()
        return frozenset(keys)

    @property
    def state(self) -> str:
        """Where the newest ask stands."""
        if self.denied:
            return DENIED
        newest = self.asks[-1].key if self.asks else ""
        return APPROVED if newest in self.approved else WAITING


class Approvals:
    """All runs that asked, and the decisions."""

    def __init__(self, site: Path) -> None:
        self.folder = site / FOLDER
        self._files = RunFiles(self.folder)

    def runs(self) -> list[str]:
        """Every run that asked or was decided about, by name."""
        return self._files.runs()

    def of(self, run: str) -> File:
        """Everything about a run; nothing, if it never asked.

        Raises:
            ExchangeError: if this cannot be the id of a run.
            StateError: if the file cannot be read.
        """
        return _file(run, self._files.read(run) or {})

    def check(self, request: Request, *, required: bool, now: datetime) -> None:
        """Accept a run that the data officer lets in; else keep what it asks for.

        Args:
            request: any message of the run.
            required: whether a run needs an approval; a denial counts either way.
            now: the time.

        Raises:
            ApprovalError: if it waits for a decision.
            PolicyError: if it was denied; the coordinator need not wait for it.
            StateError: if what it asks for cannot be kept.
        """
        found = self.of(request.run)
        if found.denied:
            raise PolicyError(
                f"run {request.run} was denied by {found.decisions[-1]['by']} on "
                f"{found.decisions[-1]['at'][:10]}; to let it in after all: "
                f"vgmedgen-client approve {request.run}"
            )
        said = {name: request.words[name] for name in _SAID}
        if not required or _key(said) in found.approved:
            return
        self._keep(request.run, said, now)
        changed = " in a changed form" if found.approved else ""
        raise ApprovalError(
            f"run {request.run} waits for the data officer{changed}; look at it and "
            f"decide: vgmedgen-client approve {request.run}"
        )

    def approve(self, ask: Ask, by: str, now: datetime) -> None:
        """Let a run do exactly what `ask` says.

        Raises:
            StateError: if the decision cannot be kept.
        """
        self._decide(ask.run, APPROVED, ask.key, by, now)

    def deny(self, run: str, by: str, now: datetime) -> None:
        """Keep a run out, whatever it asks for, until it is approved again.

        Raises:
            StateError: if the decision cannot be kept.
        """
        self._decide(run, DENIED, "", by, now)

    def _decide(
        self, run: str, decision: str, key: str, by: str, now: datetime
    ) -> None:
        with self._files.locked():
            kept = self._files.read(run) or {}
            told = {"decision": decision, "ask": key, "by": by, "at": now.isoformat()}
            decisions = [*kept.get("decisions", []), told]
            asks = kept.get("asks", [])
            self._files.write(run, {"asks": asks, "decisions": decisions})

    def _keep(self, run: str, said: Mapping[str, str], now: datetime) -> None:
        with self._files.locked():
            kept = self._files.read(run) or {}
            asks = list(kept.get("asks", []))
            if any(_key(one) == _key(said) for one in asks):
                return
            if len(asks) >= MOST_ASKS:
                raise ApprovalError(
                    f"run {run} has asked for {len(asks)} different things, no more is "
                    f"kept; deny it, or move {self._files.path(run)} away"
                )
            if not asks and self._waiting() >= MOST_WAITING:
                raise ApprovalError(
                    f"{MOST_WAITING} runs wait for a decision in {self.folder}, no more "
                    "are kept; decide about some of them: vgmedgen-client runs"
                )
            asks.append({**said, "at": now.isoformat()})
            decisions = kept.get("decisions", [])
            self._files.write(run, {"asks": asks, "decisions": decisions})

    def _waiting(self) -> int:
        return sum(self.of(run).state == WAITING for run in self.runs())


def _file(run: str, kept: Mapping[str, Any]) -> File:
    return File(
        run=run,
        asks=tuple(
            Ask(run=run, said={name: one[name] for name in _SAID}, at=one["at"])
            for one in kept.get("asks", [])
        ),
        decisions=tuple(kept.get("decisions", [])),
    )


def _key(said: Mapping[str, str]) -> str:
    # the plan itself is held by its digest, which was checked when it arrived
    return digest_of({name: said[name] for name in _SAID[1:]})
