"""What every command line of this system does alike."""

import errno
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
import typer.core
from rich.console import Console
from rich.progress import Progress

from vgmedgen.errors import ConfigError, VGMedGenError
from vgmedgen.process import environment

Overrides = Annotated[
    list[str] | None, typer.Argument(help="config overrides, such as model=small")
]


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
        if error.errno != errno.ENAMETOOLONG:
            raise
        told = f"{str(error.filename)[:40]}...: a name that long is no file's"
        print(one_line(f"{name}: {told} [{ConfigError.code}]"), file=sys.stderr)
        raise SystemExit(ConfigError.exit_code) from None


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
