"""What every command line of this system does alike."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from vgmedgen.errors import VGMedGenError

Overrides = Annotated[
    list[str] | None, typer.Argument(help="config overrides, such as model=small")
]


def run_cli(start: Callable[[], object], name: str) -> None:
    """Run a command line; turn our errors into one line and an exit code."""
    # neither a hub nor a usage statistic may be asked for, whatever a library thinks
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # other people's progress bars
    logging.basicConfig(
        level="WARNING", format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    for ours in ("vgmedgen", "server", "client", "simulations"):
        logging.getLogger(ours).setLevel(logging.INFO)
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # not the user's
    try:
        start()
    except VGMedGenError as error:
        print(f"{name}: {error} [{error.code}]", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


@contextmanager
def progress_of(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; yields what moves it on."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
