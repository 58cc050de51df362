"""One process per folder: the kernel lets go of the lock however a process ends."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vgmedgen.errors import StateError


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` as long as the block runs.

    Args:
        path: is made; holds the process id of the holder.
        what: is running, for the message.

    Raises:
        StateError: if another process holds it, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(number, 20, 0).decode(errors="replace").strip()
            raise StateError(
                f"{what} is running already on {path.parent} (process "
                f"{holder or 'unknown'}); stop that one first"
            ) from None
        with suppress(OSError):  # a full disk: the lock holds without a name in it
            os.ftruncate(number, 0)
            os.pwrite(number, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(number)


@contextmanager
def waiting_for(path: Path, waits: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; wait for whoever has it first.

    The file is gone afterwards.

    Args:
        path: is made.
        waits: is called once, if another process holds the lock.

    Raises:
        StateError: if the file cannot be made.
    """
    number = _locked(path, waits)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held, so that nobody else's is removed
        os.close(number)


def _locked(path: Path, waits: Callable[[], None]) -> int:
    """Descriptor of the lock file that lies at `path` once it is this process's own."""
    said = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StateError(
                f"cannot write {path}: {error.strerror or error}; choose a folder that "
                "this user may write to"
            ) from None
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not said:
                waits()
                said = True
            fcntl.flock(number, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(number), path.stat()):
                return number
        os.close(number)  # the one before has removed the file that this one opened


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file `path`."""
    try:
        with path.open("a", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
