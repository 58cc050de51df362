"""Read csv files whose columns are known, and say clearly what is wrong with one."""

import csv
from collections.abc import Sequence
from pathlib import Path

from vgmedgen.errors import DataError

Row = tuple[int, dict[str, str]]  # line number in the file, values by column


def read_rows(path: Path, required: Sequence[str]) -> list[Row]:
    """Rows of a csv with a header line; values are stripped, rows may not be ragged.

    Raises:
        DataError: if the file cannot be read, a required column is missing, a column
            stands twice, or a row has more values than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            found = [name.strip() for name in reader.fieldnames or ()]
            missing = [name for name in required if name not in found]
            if missing:
                raise DataError(
                    f"{path} has no column '{missing[0]}'; it needs "
                    f"{', '.join(required)} and has {', '.join(found) or 'none'}: "
                    "add the column or rename the one that holds it"
                )
            twice = [name for name in found if name and found.count(name) > 1]
            if twice:
                raise DataError(
                    f"{path} has two columns '{twice[0]}'; rename or remove one"
                )
            reader.fieldnames = found
            return [_row(path, reader.line_num, values) for values in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as a UTF-8 csv: {error}; save it again as csv"
        ) from error


def _row(path: Path, line: int, values: dict[str | None, str | None]) -> Row:
    if None in values:
        raise DataError(
            f"{path} line {line} has more values than the header has columns; put "
            "text that holds a comma in double quotes"
        )
    return line, {str(name): (value or "").strip() for name, value in values.items()}


def write_rows(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Write a csv with a header line, as UTF-8."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
