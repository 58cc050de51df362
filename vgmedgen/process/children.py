"""Children that are kept alive: started, watched, restarted with backoff, stopped."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from vgmedgen.process.environment import of_children

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STEADY_S = 120.0  # a child that lived this long starts over with the shortest pause
STOP_S = 12.0  # a child that was told to stop has this long
_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL)(:? +)([\w.\-]+:(?: |$))?(.*)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_KEPT = 40  # last lines of a child, to say why it ended

Explain = Callable[[str, int], str]
"""(last lines of a child, its exit status) -> one line that says why it ended."""


@dataclass
class Child:
    """A process that is to run as long as its keeper does."""

    name: str  # in the log
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)  # beside the keeper's own
    explain: Explain | None = None
    pause_of: Callable[[str, float], float] | None = (
        None  # (last lines, pause) -> pause
    )
    hear: Callable[[str], None] | None = None  # gets every line
    process: subprocess.Popen[str] | None = None
    started: float = 0.0
    due: float = 0.0  # when it may be started again, monotonic
    pause: float = FIRST_PAUSE_S
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _pump: threading.Thread | None = None

    def start(self) -> None:
        """Start the process; its output goes to the log, line by line."""
        self.lines.clear()
        self.started = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - our own modules
            list(self.argv),
            env=of_children() | {**self.env, PARENT: str(os.getpid())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a Ctrl-C is the keeper's, who stops them in order
        )
        self._pump = threading.Thread(
            target=self._copy, args=(self.process,), daemon=True
        )
        self._pump.start()

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def tend(self) -> None:
        """Start the process if it does not run and its pause is over."""
        if self.running:
            return
        now = time.monotonic()
        if self.process is not None:
            self._ended(self.process, now)
        if now >= self.due:
            self.start()

    def stop(self, timeout_s: float = STOP_S) -> None:
        """Tell the process to stop, and end it if it does not."""
        if self.process is None:
            return
        if self.running:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                log.warning(
                    "%s did not stop in %.0f s, it is ended", self.name, timeout_s
                )
                self.process.kill()
                self.process.wait()
        self.process = None

    def restart(self, why: str) -> None:
        """Stop the process now; `tend` starts it again."""
        log.warning("%s is started again: %s", self.name, why)
        self.stop()
        self.due = 0.0

    def _ended(self, process: subprocess.Popen[str], now: float) -> None:
        self.process = None
        if self._pump is not None:
            self._pump.join(2)
        if now - self.started > STEADY_S:
            self.pause = FIRST_PAUSE_S
        told, status = "\n".join(self.lines), process.returncode
        why = self.explain(told, status) if self.explain else _how(status)
        pause = self.pause_of(told, self.pause) if self.pause_of else self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE_S)
        self.due = now + pause
        log.warning("%s ended: %s; starting it again in %.0f s", self.name, why, pause)

    def _copy(self, process: subprocess.Popen[str]) -> None:
        logger = logging.getLogger(f"{__name__}.{self.name}")
        with process.stdout or nullcontext(()) as output:
            for raw in output:
                self._say(logger, _COLOUR.sub("", raw).rstrip())

    def _say(self, logger: logging.Logger, line: str) -> None:
        # much of what a child says was chosen by others, and a terminal obeys it
        line = _CONTROL.sub(" ", line).rstrip()
        if not line:
            return
        self.lines.append(line)
        if self.hear is not None:
            self.hear(line)
        found = _LEVEL.fullmatch(line)
        level = logging.getLevelNamesMapping()[found[1]] if found else logging.INFO
        text = found[4].strip() if found else line
        # `INFO:` and blanks is a web server inside, telling of its own start
        chatter = level <= logging.INFO and found and ":" in found[2]
        if text and not chatter:
            logger.log(level, "%s", text, extra={"source": self.name})


PARENT = "VGMEDGEN_KEEPER"  # environment: process id of whoever keeps a child


def follow_keeper() -> None:
    """End this process when its keeper is gone: nobody would stop or restart it."""
    keeper = int(os.environ.get(PARENT, "0"))
    if not keeper:
        return

    def watch() -> None:
        while os.getppid() == keeper:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="keeper").start()


def module(name: str, *words: str) -> list[str]:
    """Command line of a module of ours, by this very Python.

    Of the installed one: `-m` alone would look into the working folder first.
    """
    return [sys.executable, "-P", "-m", name, *words]


def _how(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"
