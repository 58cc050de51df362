"""Read csv files whose columns are known, and say clearly what is wrong with one.

A spreadsheet saves a csv with commas, semicolons or tabs, as UTF-8 with or without a mark
at its head, or as UTF-16; all of these are read. An encoding that says nothing of itself
is refused: a guess would change names.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

from vgmedgen.errors import DataError

Row = tuple[int, dict[str, str]]  # line number in the file, values by column

DELIMITERS = (",", ";", "\t")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SEPARATOR = re.compile(
    r"sep=(.)\r?\n", re.IGNORECASE
)  # first line, as spreadsheets do
_NEAR = 0.85  # how alike two column names are of which one is a typing error
_LONG = 4  # letters of a name from which on the same letters are the same word
# what people call a column, in letters and digits alone
_CALLED = {
    "image": {"img", "imagepath", "imagefile", "file", "filename", "path", "picture"},
    "mask": {"maskpath", "maskfile", "segmentation", "segmentationmask", "seg"},
    "caption": {"text", "prompt", "description"},
    "patient_id": {
        *("patient", "pid", "patientno", "patientnumber", "patientname", "patientkey"),
        *("subject", "subjectid", "person", "personid", "participant", "participantid"),
    },
    "lesion_id": {"lesion", "lesionno", "lesionnumber"},
    "unit": {
        *("patient", "patientid", "pid", "subject", "subjectid", "lesion", "lesionid"),
        *("case", "caseid", "study", "studyid", "exam", "examid", "group", "groupid"),
    },
}
# a column that says as much or more: without it a near name would be meant
_INSTEAD = {"unit": {"patient_id", "lesion_id"}, "lesion_id": {"unit", "patient_id"}}


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> list[Row]:
    """Rows of a csv with a header line; values are stripped, rows may not be ragged.

    Rows without any value, as spreadsheets leave them at the end, are passed over, and
    so is what stands under no name.

    Args:
        path: of the csv.
        required: columns that it must have.
        optional: further columns that the caller reads.

    Raises:
        DataError: if the file cannot be read, a required column is missing, a column
            stands twice or is called nearly as one that is read, a row has more values
            than the header, or a quotation mark is open or stray.
    """
    text, begun = _unmarked(decoded(path))
    known = (*required, *optional)
    try:
        delimiter = begun or _delimiter(text, known)
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, strict=True
        )
        named = [name.strip() for name in next(reader, [])]
        _check_columns(path, named, required, known)
        first = 1 if begun else 0  # the line that names the delimiter
        return [
            _row(path, first + reader.line_num, named, values)
            for values in reader
            if any(map(str.strip, values)) or len(values) == 1
        ]
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read as a csv: {error}; look for a quotation mark that is "
            "not closed, or save it again as csv"
        ) from error


def decoded(path: Path) -> str:
    """The text of a file that says how it is coded, or is UTF-8.

    Raises:
        DataError: if it cannot be read, or is coded in another way.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}; check the path and who "
            "may read it"
        ) from error
    code = "utf-16" if content.startswith(_UTF16) else "utf-8-sig"
    try:
        text = content.decode(code)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} cannot be read as a UTF-8 csv: line {line} is coded in another way; "
            "save it again as 'CSV UTF-8', or in UTF-8 by an editor"
        ) from error
    if "\0" in text:
        raise DataError(
            f"{path} cannot be read as a UTF-8 csv: it holds zero bytes, as UTF-16 "
            "without a mark at its head does; save it again as 'CSV UTF-8'"
        )
    return text


def nfc(text: str) -> str:
    """The text in Unicode's composed form: names that look equal are equal in it."""
    return unicodedata.normalize("NFC", text)


def write_rows(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Write a csv with a header line, as UTF-8."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)


def _unmarked(text: str) -> tuple[str, str]:
    """The text without a first line that names the delimiter, and that delimiter."""
    begun = _SEPARATOR.match(text)
    return (text[begun.end() :], begun[1]) if begun else (text, "")


def _delimiter(text: str, known: Sequence[str]) -> str:
    """The delimiter under which most of the header's names are known."""
    forms = {_form(name) for name in known}

    def names(delimiter: str) -> int:
        try:
            header = next(
                csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            )
        except (StopIteration, csv.Error):
            return 0
        return sum(_form(name) in forms for name in header)

    return max(DELIMITERS, key=names)  # of equals the first


def _check_columns(
    path: Path, named: Sequence[str], required: Sequence[str], known: Sequence[str]
) -> None:
    """Refuse columns that are missing, stand twice, or are nearly one that is read."""
    there = {*named} & {*known}  # columns that are read
    missing = next((name for name in required if name not in named), None)
    if missing is not None:
        near = next((name for name in named if _is_near(name, missing, there)), None)
        todo = (
            f"rename '{near}' to '{missing}'" if near else "add the column or rename "
        )
        raise DataError(
            f"{path} has no column '{missing}'; it needs {', '.join(required)} and has "
            f"{', '.join(filter(None, named)) or 'none'}: "
            f"{todo}{'' if near else 'the one that holds it'}"
        )
    twice = [name for name in named if name and named.count(name) > 1]
    if twice:
        raise DataError(f"{path} has two columns '{twice[0]}'; rename or remove one")
    for name in named:
        if name in known:
            continue
        for one in known:
            if _is_near(name, one, there):
                todo = (
                    f"both '{one}' and '{name}', and which of them counts is not guessed; "
                    "remove or rename one"
                    if one in named
                    else f"a column '{name}', which is not read, and none '{one}', which "
                    f"is; rename it to '{one}', or to another word if it is something else"
                )
                raise DataError(f"{path} has {todo}")


def _is_near(name: str, known: str, there: set[str]) -> bool:
    """Whether a column that is not read was meant as one that is."""
    form, asked = _form(name), _form(known)
    if not form or name == known:
        return False
    if asked in (form, form.removesuffix("s")):
        return True
    if known in there or _INSTEAD.get(known, set()) & there:
        return False
    called = _CALLED.get(known, set())
    alike = SequenceMatcher(a=form, b=asked, autojunk=False).ratio() >= _NEAR
    swapped = len(form) >= _LONG and sorted(form) == sorted(asked)
    return alike or swapped or form in called or form.removesuffix("s") in called


def _form(name: str) -> str:
    """Letters and digits of a name, whatever their case."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(sign for sign in folded if sign.isalnum())


def _row(path: Path, line: int, named: Sequence[str], values: Sequence[str]) -> Row:
    if len(values) > len(named):
        raise DataError(
            f"{path} line {line} has more values than the header has columns; put "
            "text that holds a comma in double quotes"
        )
    filled = [*values, *[""] * (len(named) - len(values))]
    return line, {
        name: value.strip() for name, value in zip(named, filled, strict=True) if name
    }
