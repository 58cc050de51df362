"""What is done alike with the folders of releases, whatever somebody put into them."""

import ctypes
import errno
import os
import shutil
from pathlib import Path

from vgmedgen.files import sha256

LINK = "link"  # in place of a digest: of a link, or what else is no plain file
_HERE = -100  # AT_FDCWD: paths are as any other call takes them
_EXCHANGE = 2  # RENAME_EXCHANGE
_CANNOT = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


def is_there(path: Path) -> bool:
    """Whether a path is there; one that no disk can hold is not.

    Raises:
        PermissionError: if that cannot be known.
    """
    try:
        return path.exists()
    except PermissionError:
        raise
    except OSError:  # a name that is too long
        return False


def clear(path: Path) -> None:
    """Delete what is at `path`, a folder or not; a link goes, what it names stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def exchange(one: Path, other: Path) -> bool:
    """Give each of two paths what the other one names: in one step, or not at all.

    Returns:
        False, and nothing was done, where the system or the file system has no such step.

    Raises:
        OSError: if it has, and refuses.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2  # Linux has it
    except (OSError, TypeError, AttributeError):
        return False
    places = os.fsencode(one), os.fsencode(other)
    if rename(_HERE, places[0], _HERE, places[1], _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def files_of(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder`, sorted; `LINK` for what is no plain file."""
    return {
        path.relative_to(folder).as_posix(): LINK
        if path.is_symlink() or not path.is_file()
        else sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }


def sync(folder: Path) -> None:
    """Have the disk keep the names in `folder`."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def settle(folder: Path) -> None:
    """Have the disk keep every file and name below `folder` before it is renamed."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync(path)
        else:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    sync(folder)


def reason(error: Exception) -> str:
    """Why the disk refused, in a few words."""
    said: object = getattr(error, "strerror", None) or error
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        told = str(error.args[0][0][-1])  # of a tree: the first file that failed
        # of an OSError as text: without its number, and without the file
        said = told.split("] ", 1)[-1].split(": '", 1)[0]
    return " ".join(str(said).split())[:200]
