"""Whether the coordinator can still write: asked by `/health`, found out by writing."""

import errno
import time
from contextlib import suppress
from pathlib import Path

from vgmedgen.errors import StateError
from vgmedgen.files import write_bytes

TRIAL_BYTES = 2**20  # what a round needs at the least
EVERY_S = 10.0  # whoever asks more often hears the last answer
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Disk:
    """Tries to write into a folder, now and then."""

    def __init__(self, folder: Path, every_s: float = EVERY_S) -> None:
        self._trial = folder / ".health"
        self._every_s = every_s
        self._tried = -every_s
        self._told = ""

    def __call__(self) -> str:
        """What is wrong, in words that anybody may hear; nothing if all is well."""
        now = time.monotonic()
        if now - self._tried >= self._every_s:
            self._told, self._tried = self._found(), now
        return self._told

    def _found(self) -> str:
        try:
            write_bytes(self._trial, b"\0" * TRIAL_BYTES)
        except StateError as error:
            cause = error.__cause__
            full = isinstance(cause, OSError) and cause.errno in _FULL
            return "the disk is full" if full else "the disk cannot be written"
        with suppress(OSError):
            self._trial.unlink()
        return ""
