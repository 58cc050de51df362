"""Find a dataset's folder, and pair images with masks by name."""

from collections.abc import Callable, Sequence
from pathlib import Path

from vgmedgen.errors import DataError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})


def own_folder(root: Path, holds: Callable[[Path], bool]) -> Path | None:
    """`root`, or its first subfolder by name, for which `holds` is true."""
    below = sorted(path for path in root.glob("*") if path.is_dir())
    return next((path for path in (root, *below) if holds(path)), None)


def pictures(folder: Path) -> list[Path]:
    """Image files of a folder by name, hidden ones left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def refuse(name: str, problem: str, files: Sequence[str], remedy: str) -> None:
    """Raise DataError that counts `files` and names the first, if there are any."""
    if files:
        raise DataError(
            f"{name}: {len(files)} {problem}, the first is '{files[0]}'; {remedy}"
        )
