"""Look at every image of a dataset once, as training will: what is refused, what is odd.

A refused image stops the training of the whole site, so it has to be known before. What
was found of a file is remembered by the file's identity (path, size, times), under which
its content stays the same unless somebody forges all of them.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL
import pydicom

from vgmedgen import __version__
from vgmedgen.data import images
from vgmedgen.data.pixels import READING
from vgmedgen.data.records import Record
from vgmedgen.errors import DataError

WITHOUT_LESION = frozenset(
    {
        *("normal", "healthy", "no finding", "no findings", "no lesion", "no tumor"),
        *("negative", "none", "control", "background"),
    }
)
"""Labels, in lower case, that say that there is nothing to be seen."""
NEARLY_ALL = 0.98  # share of an image from which a mask covers nearly everything
PX = 64  # side at which images are looked at, pixels
_PRIVATE = 0o600
_MOST = 1 << 17  # records that are remembered
_NAMED = 5  # images that a refusal names


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found of one record.

    Attributes:
        record: that was looked at.
        refused: why training would refuse it; empty where it does not.
        share: of the image that its mask covers, 0 to 1.
    """

    record: Record
    refused: str = ""
    share: float = 0.0

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a person should look at although it can be read."""
        if self.refused or not self.record.masks:
            return ()
        label = self.record.label
        called = f", though its label is '{label}'" if label else ""
        if label.casefold().replace("_", " ") in WITHOUT_LESION:
            shows = f"its mask shows a lesion{called}"
            return (shows,) if self.share > 0 else ()
        if self.share == 0:
            return (f"its mask is empty{called}",)
        if self.share >= NEARLY_ALL:
            return (f"its mask covers {100 * self.share:.0f} % of the image",)
        return ()


class Memory:
    """What was found of files before, in one file that its owner alone can read."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, tuple[str, float]] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            told = json.loads(path.read_text("utf-8")) if path else {}
            self._known = {
                str(key): (str(refused), float(share))
                for key, (refused, share) in told.items()
            }

    def knows(self, record: Record) -> bool:
        """Whether the record's files were looked at as they are now."""
        return _identity(record) in self._known

    def look(self, record: Record) -> Inspection:
        """What there is to say of a record, which is opened only if it is not known."""
        key = _identity(record)
        found = self._known.get(key) if key else None
        if found is None:
            found = _look(record)
        if key:
            self._known.pop(key, None)
            self._known[key] = found  # last, as what is forgotten is the first
        return Inspection(record=record, refused=found[0], share=found[1])

    def save(self) -> None:
        """Keep what was looked at; where that cannot be written, it is looked at again."""
        if self._path is None:
            return
        part = self._path.with_name(f".{self._path.name}.part")
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
            number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
            with os.fdopen(number, "w", encoding="utf-8") as stream:
                json.dump(dict([*self._known.items()][-_MOST:]), stream)
            part.replace(self._path)


def inspect(
    records: Sequence[Record], memory: Memory, advance: Callable[[int], None]
) -> list[Inspection]:
    """Look at every record.

    Args:
        records: of one dataset or several.
        memory: of what was found before; not saved here.
        advance: told 1 after each record.
    """
    found: list[Inspection] = []
    for record in records:
        found.append(memory.look(record))
        advance(1)
    return found


def check(found: Sequence[Inspection], what: str) -> None:
    """Refuse a dataset some of whose images training would refuse.

    Raises:
        DataError: with how many, the names of the first few, and the first cause.
    """
    refused = [one for one in found if one.refused]
    if refused:
        few = ", ".join(one.record.image.name for one in refused[:_NAMED])
        more = ", …" if len(refused) > _NAMED else ""
        raise DataError(
            f"{what}: {len(refused)} of {len(found)} images are refused ({few}{more}), "
            f"and no run trains here while one is; the first: {refused[0].refused}"
        )


def _look(record: Record) -> tuple[str, float]:
    try:
        _, mask = images.load(record, PX)
    except DataError as error:
        return str(error), 0.0
    return "", round(float(mask.float().mean()), 4)


def _identity(record: Record) -> str:
    """Digest of all that decides what is found; empty where a file cannot be seen."""
    told: list[object] = [
        READING,
        PX,
        __version__,
        PIL.__version__,
        pydicom.__version__,
    ]
    try:
        for path in (record.image, *record.masks):
            seen = path.stat()
            told += [str(path.absolute()), seen.st_size, seen.st_ino]
            told += [seen.st_mtime_ns, seen.st_ctime_ns]
    except OSError:
        return ""
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
