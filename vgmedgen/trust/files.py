"""Files with secrets: readable by their owner alone, or not read at all."""

import os
import stat
from pathlib import Path

from vgmedgen.errors import StateError, TrustError

OWNER_ONLY = 0o600


def read_secret(path: Path) -> bytes:
    """The content of a file that nobody but its owner can read.

    Raises:
        TrustError: if it is missing, unreadable, or others may read it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes()
    except OSError as error:
        raise TrustError(f"cannot read {path}: {error.strerror or error}") from None
    if mode & 0o077:
        raise TrustError(
            f"{path} can be read by others (mode {mode:03o}); a private key must be "
            f"600: chmod 600 {path}, or make a new key if others had access"
        )
    return content


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read.

    Raises:
        StateError: if it cannot be written.
        TrustError: if there is a file already: a key is never replaced in passing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except FileExistsError:
        raise TrustError(
            f"{path} exists; move it away first if a new one is wanted"
        ) from None
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror or error}") from error
    with os.fdopen(number, "wb") as stream:
        stream.write(content)
