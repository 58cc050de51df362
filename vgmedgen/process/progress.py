"""Progress of long work as lines of a log, for whoever has no terminal to see a bar in."""

import logging
import time
from collections.abc import Callable

FIRST_S = 10.0  # seconds of silence before the first line of a part
EVERY_S = 30.0  # seconds between lines after that
MINUTE_S = 60


class ProgressLog:
    """Says how far a part of the work is and about how long the rest of it takes.

    Args:
        log: gets the lines, at level INFO; the first one at once.
        what: is being done, such as `base: part 2 of 6, autoencoder`.
        total: number of equal steps.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        log: logging.Logger,
        what: str,
        total: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._what, self._total, self._clock = log, what, total, clock
        self._next = clock() + FIRST_S
        self._first = 0.0, 0  # when, and how many steps were done
        log.info("%s: %d steps", what, total)

    def __call__(self, done: int) -> None:
        """Note that `done` steps are done; a line where the last one is old enough."""
        now = self._clock()
        if not self._first[1]:  # the first step warms up: it tells nothing of the rest
            self._first = now, done
            return
        if now < self._next or done >= self._total:
            return
        self._next = now + EVERY_S
        began, before = self._first
        left = (now - began) / (done - before) * (self._total - done)
        self._log.info(
            "%s: %d of %d, about %s left", self._what, done, self._total, duration(left)
        )


def duration(seconds: float) -> str:
    """A length of time for people: `40 s`, `7 min`, `2 h 5 min`."""
    if seconds < 1.5 * MINUTE_S:
        return f"{round(seconds)} s"
    minutes = round(seconds / MINUTE_S)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{minutes} min"
