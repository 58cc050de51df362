"""What every command line of this system does alike."""

import errno
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import typer.core
from rich.console import Console
from rich.progress import Progress

from vgmedgen.errors import ConfigError, StateError, VGMedGenError
from vgmedgen.process import environment

Root = Annotated[
    Path,  # not asked by typer whether it can be read: the refusal would be another one
    typer.Argument(help="the dataset's folder, or its csv", readable=False),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="config overrides, such as model=small")
]


_ANSWERS: dict[int, tuple[type[VGMedGenError], str]] = {
    errno.ENAMETOOLONG: (ConfigError, "a name that long is no file's"),
    errno.EACCES: (StateError, "permission denied; let this user read or write it"),
    errno.EPERM: (StateError, "not permitted; let this user read or write it"),
    errno.EROFS: (StateError, "its disk can only be read; choose another folder"),
    errno.ENOSPC: (StateError, "the disk is full; free some space, then start again"),
    errno.EDQUOT: (StateError, "the disk quota is used up; free some space"),
    errno.EIO: (StateError, "its disk does not answer; have it looked at"),
    errno.ESTALE: (StateError, "its network disk is gone; mount it again"),
}
"""What the system refuses, wherever it does: the kind of error, and what to do."""


def run_cli(start: Callable[[], object], name: str) -> None:
    """Run a command line; turn our errors into one line and an exit code."""
    logging.basicConfig(
        level="WARNING", format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    for ours in ("vgmedgen", "server", "client", "simulations"):
        logging.getLogger(ours).setLevel(logging.INFO)
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # not the user's
    environment.settle()
    # typer escapes "[required]" for rich even where rich does not draw the help
    typer.core.HAS_RICH = False
    try:
        start()
    except VGMedGenError as error:
        print(one_line(f"{name}: {error} [{error.code}]"), file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.filename is None or error.errno not in _ANSWERS:
            raise
        kind, told = _ANSWERS[error.errno]
        where = str(error.filename)
        where = f"{where[:40]}..." if kind is ConfigError else where
        print(one_line(f"{name}: {where}: {told} [{kind.code}]"), file=sys.stderr)
        raise SystemExit(kind.exit_code) from None


def one_line(text: str) -> str:
    """The same with whatever would move a cursor or name a colour spelled out.

    An error may quote a file that somebody else has written.
    """
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


@contextmanager
def progress_of(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, where one is seen; yields what moves it on."""
    console = Console(stderr=True)
    shown = console.is_terminal
    with Progress(console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
