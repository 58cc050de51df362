"""Lookup tables of a DICOM file: modality, VOI and palette (PS3.3 C.11.1, C.11.2, C.7.9).

Files tell the depth of their entries wrongly in many ways: 8 bits in words of 16 or two
to a word, 16 bits that end at 4095. The depth that counts is the smallest usual one that
holds the largest entry of the table.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from vgmedgen.data.pixels import depth
from vgmedgen.errors import DataError

_WORD = 1 << 16


@dataclass(frozen=True)
class Table:
    """Entries for the numbers from `first` on; the ends stand for all beyond them."""

    first: int
    entries: NDArray[np.int64]

    @property
    def bits(self) -> int:
        """Depth of the entries."""
        return depth.smallest(int(self.entries.max()))

    def __call__(self, numbers: NDArray[Any]) -> NDArray[np.int64]:
        """The entry of every number."""
        places = np.rint(numbers).astype(np.int64) - self.first
        found: NDArray[np.int64] = self.entries[places.clip(0, len(self.entries) - 1)]
        return found


def read(
    path: Path,
    item: Dataset,
    keywords: tuple[str, str] = ("LUTDescriptor", "LUTData"),
    *,
    big_endian: bool,
    signed: bool = False,
) -> Table:
    """One table.

    Args:
        path: of the file, for refusals.
        item: holds the table.
        keywords: of its descriptor and its data.
        big_endian: how words lie in the file.
        signed: whether the numbers that are looked up may be negative.

    Raises:
        DataError: if the data is not of the length that the descriptor says.
    """
    descriptor = [int(number) for number in item[keywords[0]].value]
    count = descriptor[0] % _WORD or _WORD
    first = descriptor[1] % _WORD
    if signed and first >= _WORD // 2:
        first -= _WORD
    value = item[keywords[1]].value
    if isinstance(value, bytes):
        words = np.frombuffer(
            value[: len(value) // 2 * 2], ">u2" if big_endian else "<u2"
        )
    else:
        words = np.atleast_1d(np.asarray(value, dtype=np.int64) % _WORD).astype("<u2")
    if len(words) == count:
        entries = words.astype(np.int64)
    elif len(words) == (count + 1) // 2:  # two to a word, the lower byte first
        entries = words.astype("<u2").view(np.uint8)[:count].astype(np.int64)
    else:
        raise DataError(
            f"{path} has a lookup table of {2 * len(words)} bytes for {count} entries; "
            "export the image again, without it or as 8 bit"
        )
    return Table(first, entries)
