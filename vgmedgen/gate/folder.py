"""Image files of any origin, brought before a site's release gate.

What the pipeline drew in Python, or another generator elsewhere, has met no gate yet.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from vgmedgen.data import images
from vgmedgen.data.records import Record
from vgmedgen.errors import DataError
from vgmedgen.files import visible_below
from vgmedgen.gate.release import ReleaseGate, Verdict

FORMATS = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom"}
)
TOGETHER = 32  # images judged at a time


def files_of(places: Sequence[Path]) -> list[Path]:
    """The files that are named, and the image files below folders that are named.

    Files and folders that a system or a program hides are passed over in folders.

    Args:
        places: files, taken whatever their name, and folders.

    Returns:
        Each file once, in the order of their paths within each place.

    Raises:
        DataError: if a place is not there, cannot be read, or holds no image file.
    """
    found: dict[Path, None] = {}
    for place in places:
        try:
            if place.is_file():
                found[place] = None
                continue
            below = [
                path for path in visible_below(place) if path.suffix.lower() in FORMATS
            ]
        except PermissionError as error:
            raise DataError(
                f"{error.filename or place} cannot be read: permission denied; nothing "
                "was compared: let this user read it"
            ) from None
        except (FileNotFoundError, NotADirectoryError):
            below = []
        if not below:
            raise DataError(
                f"{place} is neither an image file nor a folder with image files "
                f"({', '.join(sorted(FORMATS))}); nothing was compared"
            )
        found |= dict.fromkeys(below)
    return list(found)


def judged(
    gate: ReleaseGate, px: int, paths: Sequence[Path]
) -> Iterator[tuple[Path, Verdict]]:
    """Each file with the gate's verdict, prepared as training images are.

    Args:
        gate: of the site.
        px: side of the site's images, pixels.
        paths: image files, DICOM among them.

    Raises:
        DataError: if a file cannot be read as an image.
    """
    for first in range(0, len(paths), TOGETHER):
        part = paths[first : first + TOGETHER]
        read = [Record(path.name, path, (), path.name, "", {}) for path in part]
        pictures = [images.load(record, px)[0].movedim(0, -1) for record in read]
        yield from zip(part, gate.judge(torch.stack(pictures).numpy()), strict=True)
