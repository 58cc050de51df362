"""How the public listener speaks HTTP with whoever finds it."""

import asyncio
import logging
import time

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 20.0  # a connection has this long to begin a request, and to end its head
MOST_HEAD = 16 * 2**10  # bytes of a request's head; a node's has about 1 kB
MOST_LINKS = 1024  # connections at a time: strangers' places and those of many nodes
AGAIN_S = 10.0  # between two lines of the web server that say the same


class Brisk(H11Protocol):
    """HTTP/1.1 that closes a connection on which no request is made in time."""

    _waits: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on, from the first byte on, until the head of a request is whole."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _look(self) -> None:
        if self._busy():
            self._stop_waiting()
        else:
            self._wait()

    def _wait(self) -> None:
        if self._waits is None:
            self._waits = self.loop.call_later(REQUEST_S, self._over)

    def _stop_waiting(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None

    def _over(self) -> None:
        self._waits = None
        if not self._busy():
            self.transport.abort()


class Seldom(logging.Filter):
    """Lets a line through once in a while: strangers choose how often it is said."""

    def __init__(self, every_s: float = AGAIN_S) -> None:
        super().__init__()
        self._every_s = every_s
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line was not said a moment ago."""
        now, line = time.monotonic(), str(record.msg)
        if now - self._said.get(line, -self._every_s) < self._every_s:
            return False
        self._said[line] = now
        return True
