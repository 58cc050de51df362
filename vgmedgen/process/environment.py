"""What a process of ours finds around it, settled before anything heavy is loaded.

Several libraries read their switches when they are imported, and never again. So every
command, and every process that a command keeps, begins with `settle`.
"""

import getpass
import logging
import os
from pathlib import Path

from vgmedgen.process import importing, terminal, threads

log = logging.getLogger(__name__)

OFFLINE = {  # nothing phones home or fetches, whatever a library thinks
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}
NOBODY = "vgmedgen"  # a login name where the system knows none


def settle() -> None:
    """Settle threads, search paths, signs and the login name of this process."""
    for name, value in OFFLINE.items():
        os.environ.setdefault(name, value)
    threads.settle(os.environ)
    terminal.settle()
    name_user()
    keep_out()


def name_user() -> None:
    """Give a login name where there is none: MONAI asks for one when it is imported.

    A container may run under a number that no user has.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = NOBODY


def keep_out(*folders: Path) -> None:
    """Import nothing from the working folder and `folders`, here and in children."""
    for name in importing.guard(*folders):
        log.warning(
            "%s names the working folder, or one that is no program; it is left out, but "
            "what it brought in before is not: unset %s",
            *(name, name),
        )


def of_children() -> dict[str, str]:
    """The environment that a process which this one keeps is started with.

    What it says travels through a pipe to its keeper: as UTF-8, whatever the locale.
    """
    env = dict(os.environ)
    importing.tidy(env)
    return env | {"PYTHONIOENCODING": "utf-8:backslashreplace"}
