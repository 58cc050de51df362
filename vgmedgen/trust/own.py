"""What a process must have to itself before it serves: no links, no doors, a whole log.

A kit comes from elsewhere. A link in it would have a node write into, or close, a folder
of somebody else; a file that everybody may write is a policy or a log that anybody may
change.
"""

import stat
from collections.abc import Iterable
from pathlib import Path

from vgmedgen.errors import StateError, TrustError
from vgmedgen.trust.journal import Journal

_EVERYBODY = stat.S_IWOTH
_GROUP = stat.S_IWGRP


def check_links(paths: Iterable[Path]) -> None:
    """Refuse links where this process writes.

    Raises:
        TrustError: naming the first.
    """
    for path in paths:
        if path.is_symlink():
            raise TrustError(
                f"{path} is a link, and what is written there has to lie where it says; "
                "remove the link, and mount or move the folder itself if it needs space"
            )


def check_doors(paths: Iterable[Path]) -> None:
    """Refuse what everybody on this machine may change.

    Raises:
        TrustError: naming the first.
    """
    for path in paths:
        if path.exists() and (mode := _mode(path)) & _EVERYBODY:
            raise TrustError(
                f"everybody on this machine may change {path} (mode {mode:03o}); look "
                f"whether it still says what you wrote, then chmod o-w {path}"
            )


def group_may_change(paths: Iterable[Path]) -> list[str]:
    """Names of those that the files' group may change as well."""
    return [path.name for path in paths if path.exists() and _mode(path) & _GROUP]


def check_log(path: Path) -> None:
    """Accept an audit log that is whole, or that its next line mends after a crash.

    Raises:
        StateError: naming the first line that is not as it was written.
    """
    try:
        Journal(path).verify()
    except StateError as error:
        if "the next start" not in str(error):
            raise


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
