"""Files with secrets: readable by their owner alone, or not read at all."""

import contextlib
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
        with path.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            content = stream.read()
    except OSError as error:
        raise TrustError(f"cannot read {path}: {error.strerror or error}") from None
    if mode & 0o077:
        raise TrustError(
            f"{path} can be read by others (mode {mode:03o}); a private key must be "
            f"600: chmod 600 {path}, or make a new key if others had access"
        )
    return content


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read, whole or not at all.

    Raises:
        StateError: if it cannot be written.
        TrustError: if there is a file already: a key is never replaced in passing.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # a file in place of the folder, among others
        raise _unwritten(path, error) from error
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except FileExistsError:
        raise TrustError(
            f"{path} exists; move it away first if a new one is wanted"
        ) from None
    except OSError as error:
        raise _unwritten(path, error) from error
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> StateError:
    return StateError(
        f"cannot write {path}: {error.strerror or error}; free some space or choose "
        "another folder, then start again"
    )
