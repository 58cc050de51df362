"""When the coordinator last heard this site's node: confirmed heartbeats, not a process.

A SuperNode can run and be offline all the same. It says each heartbeat that the
coordinator confirmed; the supervisor, who hears that, starts a node again that has had
none for a while, and keeps the last one in a file for whoever asks if the node is well:

```text
node/heard.json  {"at": "2026-11-30T09:31:04+00:00", "clock": 5123.4, "since": 4711.0}
```

`clock` and `since` are seconds of this machine's clock that no one sets (CLOCK_MONOTONIC):
of the last confirmed heartbeat, null before the first, and of the start of the node.
"""

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client.node import CONFIRMED
from vgmedgen.errors import StateError
from vgmedgen.files import write_text

log = logging.getLogger(__name__)

FILE = "heard.json"  # below the node's folder
UNHEARD_S = 120.0  # a node without a confirmed heartbeat for so long is not well
RESTART_S = 300.0  # and after so long it is started again
LONGEST_S = 3600.0  # between restarts of a node that they do not help


class Heartbeats:
    """Listens to a SuperNode, and says when it has to be started again."""

    def __init__(self, place: Path, after_s: float = RESTART_S) -> None:
        self._path = place / FILE
        self._after_s = self._wait_s = after_s
        self._since = self._last = time.monotonic()
        self._at = ""
        self._clock: float | None = None
        self._begun = self._since
        self._write()

    def node_says(self, line: str) -> None:
        """A line of the SuperNode."""
        if CONFIRMED not in line:
            return
        if self.unheard_s > UNHEARD_S and self._clock is not None:
            log.info("the coordinator hears this node again")
        self._last = self._since = self._clock = time.monotonic()
        self._at = datetime.now(UTC).isoformat(timespec="seconds")
        self._wait_s = self._after_s
        self._write()

    @property
    def unheard_s(self) -> float:
        """Seconds since the last confirmed heartbeat, or since the node was started."""
        return time.monotonic() - self._last

    def started(self) -> None:
        """The SuperNode is started again, for whatever reason: it has its time."""
        self._since = time.monotonic()

    def missed(self) -> bool:
        """Whether this SuperNode has had its time and no heartbeat was confirmed."""
        return time.monotonic() - self._since > self._wait_s

    def give_longer(self) -> None:
        """A SuperNode is started again for want of them: it has longer than the last."""
        self.started()
        self._wait_s = min(2 * self._wait_s, max(LONGEST_S, self._after_s))

    def _write(self) -> None:
        told = {"at": self._at, "clock": self._clock, "since": self._begun}
        try:
            write_text(self._path, json.dumps(told))
        except StateError as error:
            log.warning("%s", error)


@dataclass(frozen=True)
class Heard:
    """What `heard.json` says, now."""

    unheard_s: float
    at: str  # of the last confirmed heartbeat, ISO 8601; empty where there was none

    @property
    def well(self) -> bool:
        """Whether the coordinator counts the node as there."""
        return self.unheard_s <= UNHEARD_S


def heard(place: Path) -> Heard | None:
    """When the coordinator last heard the node of `place`; None where nothing is known."""
    try:
        told = json.loads((place / FILE).read_text(encoding="utf-8"))
        last = told["since"] if told["clock"] is None else told["clock"]
        return Heard(unheard_s=time.monotonic() - float(last), at=str(told["at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
