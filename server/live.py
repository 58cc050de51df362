"""The live, full-screen view: looks again every two seconds, scrolls, leaves on q."""

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment, Segments
from rich.text import Text

from server.status import Status
from server.view import render
from vgmedgen.errors import ConfigError

EVERY_S = 2.0
_DOWN, _UP = ("j", " ", "\x1b[B", "\x1b[6~"), ("k", "\x1b[A", "\x1b[5~")
_STEP = 5  # lines that a key scrolls


class _Screen:
    """As many lines of a state as fit, from `top` on, and how to see the others."""

    def __init__(self, status: Status, top: int) -> None:
        self._status = status
        self.top = top

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Draw the lines that fit."""
        flowing = options.update(height=None)
        lines = console.render_lines(render(self._status), flowing, pad=False)
        room = max(1, (options.height or console.height) - 1)
        self.top = max(0, min(self.top, len(lines) - room))
        for line in lines[self.top : self.top + room]:
            yield Segments([*line, Segment.line()])
        for _ in range(room - len(lines)):
            yield Segments([Segment.line()])
        below = len(lines) - room - self.top
        more = f"{below} more lines below   " if below > 0 else ""
        yield Text(f"{more}q leaves   j and k scroll", "dim", end="")


def watch(gather: Callable[[], Status], *, every_s: float = EVERY_S) -> None:
    """Show the state until the user leaves; runs and server are not touched.

    Raises:
        ConfigError: if this is no terminal.
    """
    console = Console()
    if not (console.is_terminal and sys.stdin.isatty()):
        raise ConfigError(
            "--watch needs a terminal; print it once without --watch, or use --json"
        )
    screen = _Screen(gather(), 0)
    with (
        suppress(KeyboardInterrupt),
        _keys() as key,
        Live(screen, console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            live.update(screen, refresh=True)
            pressed = key(every_s)
            if pressed == "q":
                return
            top = screen.top + _STEP * ((pressed in _DOWN) - (pressed in _UP))
            screen = _Screen(gather(), top)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key; empty where none came."""
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def key(wait_s: float) -> str:
        ready, _, _ = select.select([number], [], [], wait_s)
        return os.read(number, 16).decode("utf-8", "replace") if ready else ""

    try:
        tty.setcbreak(number)
        yield key
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
