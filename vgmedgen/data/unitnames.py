"""Names of units as tables give them: none is guessed, and none stands for nobody.

A unit is what privacy protects. A cell that says `nan` would join strangers, and `P1`
beside `p1` would make two units of one patient.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from vgmedgen.data.tables import nfc
from vgmedgen.errors import DataError

NOBODY = frozenset(
    {
        *("nan", "none", "null", "nil", "na", "n/a", "n.a.", "#n/a", "#na", "<na>"),
        *("-", "--", "---", "\u2013", "\u2014", "?", "??", ".", "..", "...", "_", "/"),
        *("#ref!", "#value!", "#name?", "#null!", "#num!", "#div/0!", "#####"),
        *("unknown", "missing", "empty", "undefined", "not available", "anonymous"),
    }
)


_SHORTENED = re.compile(r"[+-]?[0-9][.,][0-9]+E\+?[0-9]+", re.IGNORECASE)


def named(path: Path, line: int, unit: str) -> str:
    """A unit's name in Unicode's composed form.

    Raises:
        DataError: if it is what programs and people write where they know none, or what
            a spreadsheet makes of a long number.
    """
    if _SHORTENED.fullmatch(unit):
        raise DataError(
            f"{path} line {line}: the unit '{unit}' is a number that a spreadsheet has "
            "shortened, and others may look the same now; format the column as text and "
            "fill it in again"
        )
    if _looks(unit) in {_looks(word) for word in NOBODY} or not _looks(unit):
        raise DataError(
            f"{path} line {line}: the unit is '{unit}', which says that nobody knows it; "
            "all such images would count as one person: write a name of its own for each"
        )
    return nfc(unit)


def check_alike(path: Path, units: Iterable[tuple[int, str]]) -> None:
    """Refuse two units whose names differ in case, blanks or hidden signs alone.

    Args:
        path: of the table.
        units: line and name.

    Raises:
        DataError: naming both lines.
    """
    first: dict[str, tuple[int, str]] = {}
    for line, unit in units:
        before, other = first.setdefault(_looks(unit), (line, unit))
        if other != unit:
            raise DataError(
                f"{path} line {line}: the units '{unit}' and '{other}' (line {before}) "
                "differ in case or blanks alone, and one person in two units would be "
                "protected half; write both alike, or let them differ by more"
            )


def near_double(units: Iterable[str]) -> tuple[str, str] | None:
    """The first two units whose names differ in case, blanks or hidden signs alone."""
    first: dict[str, str] = {}
    for unit in units:
        other = first.setdefault(_looks(unit), unit)
        if other != unit:
            return other, unit
    return None


def _looks(unit: str) -> str:
    """A name without case, blanks and signs that cannot be seen."""
    folded = unicodedata.normalize("NFKC", unit).casefold()
    return "".join(
        sign
        for sign in folded
        if not sign.isspace() and unicodedata.category(sign) not in ("Cf", "Cc")
    )
