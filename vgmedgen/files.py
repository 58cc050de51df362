"""Files that are whole or absent: atomic writes, and digests of what is on disk."""

import contextlib
import hashlib
import os
from pathlib import Path

from vgmedgen.errors import StateError

# of macOS, Windows, NAS devices and file systems; names with a dot are hidden anyway
_SYSTEM = frozenset(
    {
        *("__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "lost+found"),
        *("@eadir", "#recycle", "system volume information"),
    }
)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` so that a crash leaves either the old file or the new one.

    Raises:
        StateError: if the disk is full or not writable; the old file is untouched.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise StateError(
            f"cannot write {path}: {error.strerror or error}; what was there before is "
            "intact; free some space or choose another folder, then start again"
        ) from error


def write_text(path: Path, content: str) -> None:
    """Write `content` as UTF-8, whole or not at all (see `write_bytes`)."""
    write_bytes(path, content.encode())


def is_hidden(name: str) -> bool:
    """Whether a name is one that a system or a program gives to files of its own."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def is_system(path: Path) -> bool:
    """Whether a file is one that a desktop leaves in folders that it shows."""
    name = path.name
    wrote = name.startswith("._") or name.casefold() in {".ds_store", *_SYSTEM}
    return wrote and path.is_file() and not path.is_symlink()


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without what a system or a program put there."""
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))


def visible_below(folder: Path) -> list[Path]:
    """Every file below a folder, by path, none in a hidden folder or hidden itself.

    Raises:
        OSError: if a folder cannot be read: what lies in it must not be passed over.
    """
    found: list[Path] = []
    for here, below, names in os.walk(folder, onerror=_raise):
        below[:] = [name for name in below if not is_hidden(name)]
        found += [Path(here, name) for name in names if not is_hidden(name)]
    return sorted(path for path in found if path.is_file())


def _raise(error: OSError) -> None:
    raise error


def sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_digests(folder: Path, *, leave_out: frozenset[str]) -> dict[str, str]:
    """sha256 of every file below `folder`, by POSIX path, sorted; `leave_out` by name."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in leave_out
    }
