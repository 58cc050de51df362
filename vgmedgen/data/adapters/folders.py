"""Find a dataset's folder, and pair images with masks by name.

Names are compared in Unicode's composed form: a Mac writes `ü` as two signs, and what a
table or another folder calls the file has one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from vgmedgen.data.tables import nfc
from vgmedgen.errors import DataError
from vgmedgen.files import visible

OPENED = "let this user read it, or name the dataset's own folder"
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})


def own_folder(root: Path, holds: Callable[[Path], bool]) -> Path | None:
    """`root`, or its first subfolder by name, for which `holds` is true.

    A subfolder that this user may not look into is passed over.

    Raises:
        DataError: if none holds and one is closed, which may be the one that is meant.
        PermissionError: if `root` itself is closed.
    """
    if not root.is_dir():
        return None
    below = [path for path in visible(root) if path.is_dir()]
    if holds(root):
        return root
    closed = None
    for path in below:
        try:
            visible(
                path
            )  # a pattern finds nothing in a closed folder, and says nothing
            if holds(path):
                return path
        except PermissionError:
            closed = closed or path
    if closed is not None:
        raise DataError(f"{closed} cannot be read: permission denied; {OPENED}")
    return None


def pictures(folder: Path) -> list[Path]:
    """Image files of a folder by name, hidden ones left out.

    Raises:
        DataError: if two names look equal and differ in their signs alone.
    """
    found = [path for path in visible(folder) if path.suffix.lower() in SUFFIXES]
    first: dict[str, Path] = {}
    for path in found:
        if first.setdefault(nfc(path.name), path) is not path:
            raise DataError(
                f"{folder} has two files '{path.name}', whose names look equal and are "
                "written in other signs (Unicode NFC and NFD); remove or rename one"
            )
    return found


def stem(path: Path) -> str:
    """A file's name without suffix, in the form in which names are compared."""
    return nfc(path.stem)


class Names:
    """Files by the paths that a table gives, whatever form its letters have."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def find(self, folder: Path, name: str) -> list[Path]:
        """Files that a path below `folder` may mean: one, none, or several."""
        return [one for one in self.places(folder, name) if one.is_file()]

    def places(self, folder: Path, name: str) -> list[Path]:
        """Files and folders that it may mean; several look equal."""
        path = PurePath(name)
        found = [folder / path.anchor] if path.anchor else [folder]
        for part in path.relative_to(path.anchor).parts:
            found = [
                one for place in found for one in self._of(place, part) if one.exists()
            ]
        return found

    def _of(self, folder: Path, part: str) -> list[Path]:
        exact = folder / part
        if part == ".." or (part.isascii() and exact.exists()):
            return [exact]
        if folder not in self._listed:
            listed: dict[str, list[Path]] = {}
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                listed.setdefault(nfc(path.name), []).append(path)
            self._listed[folder] = listed
        return self._listed[folder].get(nfc(part), [])


def refuse(name: str, problem: str, files: Sequence[str], remedy: str) -> None:
    """Raise DataError that counts `files` and names the first, if there are any."""
    if files:
        raise DataError(
            f"{name}: {len(files)} {problem}, the first is '{files[0]}'; {remedy}"
        )
