"""One file of a release, `.vgrel`: a plain zip with exactly one form.

Entries are stored, sorted and dated alike, so the same release gives the same bytes
everywhere, and a reader can compare every byte of the zip's own structures with what they
have to be: nothing hides in a comment, an attribute or a gap.
"""

import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vgmedgen.errors import ReleaseError, StateError, VGMedGenError
from vgmedgen.release.folders import is_there, reason
from vgmedgen.release.names import FILE_NAME, LONGEST_NAME, shown

SUFFIX = ".vgrel"
MOST_ENTRIES = 64
MOST_BYTES = (
    2**31 - 2**20
)  # of an archive; far above any adapter, below zip's own limit
MOST_TEXT = 2**24  # bytes of an entry that is no tensor file
_CHUNK = 2**20
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION = 20
_UNIX = 3 << 8 | _VERSION
_DATE = 1 << 5 | 1  # 1 January 1980, midnight
_MODE = 0o100644 << 16


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One file of an archive."""

    name: str
    size: int  # bytes
    crc: int

    @property
    def local(self) -> bytes:
        """What stands before its content."""
        told = (self.crc, self.size, self.size, len(self.name), 0)
        head = _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, 0, _DATE, *told)
        return head + self.name.encode()

    def central(self, start: int) -> bytes:
        """Its row in the table of contents; `start` is where `local` stands."""
        told = (self.crc, self.size, self.size, len(self.name), 0, 0, 0, 0)
        head = (b"PK\1\2", _UNIX, _VERSION, 0, 0, 0, _DATE)
        return _CENTRAL.pack(*head, *told, _MODE, start) + self.name.encode()


def pack(folder: Path, path: Path) -> None:
    """Write the release `folder` as one file; the same release gives the same bytes.

    Raises:
        ReleaseError: if the folder holds what no release does.
        StateError: if the file cannot be written; what was there before is intact.
    """
    found = sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    names = [p.relative_to(folder).as_posix() for p in found]
    for name, inner in zip(names, found, strict=True):
        if inner.is_symlink() or not inner.is_file() or not FILE_NAME.fullmatch(name):
            inside = f"{folder}/{shown(name)}"
            raise ReleaseError(f"{inside} does not belong into a release; remove it")
    part = path.with_name(f".{path.name}.part")
    try:
        entries = [_entry(folder, name) for name in sorted(names)]
        _check_sizes(path, entries)
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            for entry in entries:
                stream.write(entry.local)
                with (folder / entry.name).open("rb") as content:
                    shutil.copyfileobj(content, stream, _CHUNK)
            stream.write(_contents(entries))
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise _unwritten(path, error) from None


def unpack(path: Path, folder: Path) -> None:
    """Read a `.vgrel` back into a folder, after checking every byte of its structure.

    Args:
        path: the file.
        folder: is made; must not exist. Left out altogether if anything is wrong.

    Raises:
        ReleaseError: if the file is no archive that `pack` wrote.
        StateError: if it cannot be read, or the folder not written.
    """
    if not (is_there(path) and path.is_file()):
        raise ReleaseError(f"there is no release file {path}")
    made = False
    try:
        with path.open("rb") as stream:
            entries = _checked(path, stream)
            folder.mkdir(parents=True)
            made = True
            for entry, content in zip(entries, _read(stream, entries), strict=True):
                target = folder / entry.name
                target.parent.mkdir(exist_ok=True)
                with target.open("xb") as out:
                    out.writelines(content)
    except BaseException as error:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise StateError(
                f"cannot unpack {path} into {folder.parent}: {reason(error)}; nothing was "
                "left behind: free some space there, then start again"
            ) from None
        raise


@contextmanager
def opened(path: Path, scratch: Path | None = None) -> Iterator[Path]:
    """The folder of a release that is a folder, or a file to be unpacked for a while.

    What is refused while it is open names `path`, and not where that was unpacked.

    Args:
        path: the folder or file.
        scratch: a folder to unpack into, which the caller deletes; None takes a passing
            one where the system has such.

    Raises:
        ReleaseError: if the file is no archive that `pack` wrote.
        StateError: if it cannot be read or unpacked.
    """
    if is_there(path) and path.is_dir():
        yield path
    elif scratch is None:
        with _passing(path) as made, opened(path, made) as folder:
            yield folder
    else:
        folder = scratch / "unpacked"
        unpack(path, folder)
        try:
            yield folder
        except VGMedGenError as error:
            said = str(error).replace(str(folder), str(path))
            if said == str(error):
                raise
            raise type(error)(said) from error.__cause__


@contextmanager
def _passing(path: Path) -> Iterator[Path]:
    try:
        scratch = tempfile.TemporaryDirectory(prefix="vgmedgen-")
    except OSError as error:
        raise StateError(
            f"cannot unpack {path}: {error.strerror or error}; set TMPDIR to a folder "
            "that can be written"
        ) from None
    with scratch as folder:
        yield Path(folder)


def _checked(path: Path, stream: BinaryIO) -> list[_Entry]:
    """The entries of an archive that is to the byte what `pack` writes of them."""
    size = stream.seek(0, 2)
    if size > MOST_BYTES:
        raise _refused(path, f"it has {size} bytes, the limit is {MOST_BYTES}")
    stream.seek(max(0, size - _END.size))
    end = stream.read()
    if len(end) < _END.size or not end.startswith(b"PK\5\6"):
        raise _refused(path, "it does not end as a release's does")
    _, _, _, _, count, rows, _, _ = _END.unpack(end)
    # nothing else is believed: a further table (zip64) may tell of a million entries
    if count > MOST_ENTRIES or rows > MOST_ENTRIES * (_CENTRAL.size + LONGEST_NAME):
        raise _refused(path, f"{count} entries, the limit is {MOST_ENTRIES}")
    stream.seek(max(0, size - _END.size - rows))
    entries = _listed(path, stream.read(rows), count)
    names = [entry.name.lower() for entry in entries]
    if len(set(names)) != len(names):
        raise _refused(path, "an entry is there twice")
    _check_sizes(path, entries)
    contents = _contents(entries)
    whole = sum(len(e.local) + e.size for e in entries) + len(contents)
    if size != whole or entries != sorted(entries, key=lambda e: e.name):
        raise _refused(path, "its entries are not laid out as a release's")
    for entry, content in zip(entries, _read(stream, entries), strict=True):
        crc = 0
        for chunk in content:
            crc = zlib.crc32(chunk, crc)
        if crc != entry.crc:
            raise _refused(path, f"{entry.name} has changed")
    stream.seek(size - len(contents))
    if stream.read() != contents:
        raise _refused(path, "its table of contents is not a release's")
    return entries


def _listed(path: Path, table: bytes, count: int) -> list[_Entry]:
    """The entries that a table of contents tells of; the rest of it is compared later."""
    entries = []
    for _ in range(count):
        row, table = table[: _CENTRAL.size], table[_CENTRAL.size :]
        if len(row) < _CENTRAL.size or not row.startswith(b"PK\1\2"):
            raise _refused(path, "it is no whole zip")
        told = _CENTRAL.unpack(row)
        crc, size, length = told[7], told[9], told[10]
        name, table = table[:length].decode(errors="replace"), table[length:]
        if not FILE_NAME.fullmatch(name):
            raise _refused(path, f"an entry is called '{shown(name)}'")
        entries.append(_Entry(name=name, size=size, crc=crc))
    return entries


def _read(stream: BinaryIO, entries: Sequence[_Entry]) -> Iterator[Iterator[bytes]]:
    """The content of every entry in pieces; each has to be read to its end."""
    stream.seek(0)
    for entry in entries:
        if stream.read(len(entry.local)) != entry.local:
            raise _refused(Path(stream.name), f"the head of {entry.name} has changed")
        yield _pieces(stream, entry.size)


def _pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        piece = stream.read(min(size, _CHUNK))
        if not piece:
            raise _refused(Path(stream.name), "it ends too early")
        size -= len(piece)
        yield piece


def _entry(folder: Path, name: str) -> _Entry:
    crc = size = 0
    with (folder / name).open("rb") as stream:
        while piece := stream.read(_CHUNK):
            crc, size = zlib.crc32(piece, crc), size + len(piece)
    return _Entry(name=name, size=size, crc=crc)


def _contents(entries: Sequence[_Entry]) -> bytes:
    """Table of contents and end of an archive."""
    rows, start = b"", 0
    for entry in entries:
        rows += entry.central(start)
        start += len(entry.local) + entry.size
    count = len(entries)
    return rows + _END.pack(b"PK\5\6", 0, 0, count, count, len(rows), start, 0)


def _check_sizes(path: Path, entries: Sequence[_Entry]) -> None:
    """Accept at least one entry, none too big, and not too much of them together."""
    if not entries or len(entries) > MOST_ENTRIES:
        raise _refused(path, f"{len(entries)} entries, 1 to {MOST_ENTRIES} are allowed")
    if sum(entry.size for entry in entries) > MOST_BYTES:
        raise _refused(path, f"its entries are larger than {MOST_BYTES} bytes together")
    for entry in entries:
        if entry.size > MOST_TEXT and not entry.name.endswith(".safetensors"):
            raise _refused(path, f"{entry.name} has {entry.size} bytes")


def _refused(path: Path, why: str) -> ReleaseError:
    return ReleaseError(
        f"{path} is no release file as it was published: {why}; nothing was unpacked, "
        "fetch the file again"
    )


def _unwritten(path: Path, error: OSError) -> StateError:
    return StateError(
        f"cannot write {path}: {error.strerror or error}; nothing was left behind: free "
        "some space or choose another folder, then start again"
    )
