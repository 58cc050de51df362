"""What is done alike with the folders of releases, whatever somebody put into them."""

import os
import shutil
from pathlib import Path

from vgmedgen.files import sha256

LINK = "link"  # in place of a digest: of a link, or what else is no plain file


def is_there(path: Path) -> bool:
    """Whether a path is there; one that no disk can hold is not."""
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def clear(path: Path) -> None:
    """Delete what is at `path`, a folder or not; a link goes, what it names stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
