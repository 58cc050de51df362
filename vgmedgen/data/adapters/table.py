"""Any dataset as a csv: columns image and caption, optional mask, label, id and a unit.

The unit stands in `patient_id`, in `lesion_id`, or in `unit`, on every row or on none. Any
further column becomes a fact. Paths are relative to the csv. Several masks of one image
are separated by `;`. Images and masks may be DICOM files. Where no unit is told, that of a
DICOM image is its patient, under a digest of the patient's ID, and any other image is a
unit of its own.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vgmedgen.config.plan import UNITS
from vgmedgen.data import dicom
from vgmedgen.data.adapters.folders import Names
from vgmedgen.data.records import Dataset, Record
from vgmedgen.data.tables import nfc, read_rows
from vgmedgen.data.unitnames import check_alike, named
from vgmedgen.errors import DataError

NAME = "table"
MANIFEST = "manifest.csv"
PATIENT, LESION, UNIT = "patient_id", "lesion_id", "unit"
OPTIONAL = ("id", "mask", "label", PATIENT, LESION, UNIT)
KNOWN = ("id", "image", "mask", "caption", "label")


class _Line(NamedTuple):
    number: int
    record: Record
    told: bool  # whether the table or a DICOM header tells a unit
    patient: str  # by the header of a DICOM image; empty where there is none


def read(root: Path) -> Dataset:
    """List the rows of a csv, or of manifest.csv in a folder.

    Raises:
        DataError: if a column, an image, a mask or a caption is missing, a unit is told
            on some rows and not on others, or two rows have one id.
    """
    path = root / MANIFEST if root.is_dir() else root
    if not path.is_file():
        raise DataError(f"{NAME}: no {MANIFEST} in {root}; write one or name the csv")
    rows = read_rows(path, ("image", "caption"), OPTIONAL)
    filled = {name for _, row in rows for name, value in row.items() if value}
    column = _unit_column(path, filled)
    names, lines = Names(), []
    seen: dict[str, int] = {}
    for number, row in rows:
        line = _line(path, names, number, row, column)
        first = seen.setdefault(line.record.id, number)
        if first != number:
            raise DataError(
                f"{path} line {number}: the id '{line.record.id}' stands on line "
                f"{first} too; an id may stand once: remove or rename one"
            )
        lines.append(line)
    _check_told(path, lines, column)
    if column:
        check_alike(path, ((line.number, line.record.unit) for line in lines))
    records = tuple(line.record for line in lines)
    return Dataset(NAME, "", _kind(lines, column), records)


def _unit_column(path: Path, filled: set[str]) -> str:
    """The column that tells the unit; empty where none has a value.

    Raises:
        DataError: if two could.
    """
    if {PATIENT, UNIT} <= filled:
        raise DataError(
            f"{path} has the columns '{PATIENT}' and '{UNIT}', and which of them privacy "
            f"protects is not guessed; keep '{PATIENT}' for patients and rename the other"
        )
    return next((name for name in (PATIENT, UNIT, LESION) if name in filled), "")


def _line(
    path: Path, names: Names, number: int, row: dict[str, str], column: str
) -> _Line:
    if not row["caption"]:
        raise DataError(
            f"{path} line {number}: the caption is empty; write one or remove the row"
        )
    masks = [name.strip() for name in row.get("mask", "").split(";") if name.strip()]
    name = nfc(row.get("id") or row["image"])
    image = _file(path, names, number, "image", row["image"])
    patient = dicom.header(image).patient if dicom.is_dicom(image) else ""
    unit = row.get(column, "")
    known = {*KNOWN, column, UNIT}
    record = Record(
        name,
        image,
        tuple(_file(path, names, number, "mask", mask) for mask in masks),
        named(path, number, unit) if unit else patient or name,
        row.get("label", ""),
        {key: value for key, value in row.items() if value and key not in known},
        row["caption"],
    )
    return _Line(number, record, bool(unit or patient), patient)


def _check_told(path: Path, lines: Sequence[_Line], column: str) -> None:
    """Refuse units that are told on some rows alone: a blank one is nobody's guess.

    Raises:
        DataError: naming the first row without.
    """
    cells = [line for line in lines if line.told and line.record.unit != line.patient]
    told = cells or [line for line in lines if line.told]
    if not told or len(told) == len(lines):
        return
    there = {line.number for line in told}
    first = next(line.number for line in lines if line.number not in there)
    if cells:
        raise DataError(
            f"{path} line {first}: '{column}' is empty, and line {told[0].number} has "
            "one; a unit stands on every row or on none, since one person in two units "
            "would be protected half: fill it in (merged cells leave all but the first "
            "empty)"
        )
    raise DataError(
        f"{path} line {first}: nothing tells whose image this is, while line "
        f"{told[0].number} is a DICOM image that names its patient; add a column "
        f"'{PATIENT}' and fill it on every row"
    )


def _kind(lines: Sequence[_Line], column: str) -> str:
    """What a unit is, as the row that tells the least of it says."""
    told = "lesion" if column == LESION else "patient"
    return max(_kinds(lines, told, column), key=UNITS.index)


def _kinds(lines: Sequence[_Line], told: str, column: str) -> list[str]:
    """The kind of every row's unit; `image` for an empty table."""
    images = Counter(line.record.unit for line in lines)
    # a column `unit` with a name of its own for every image tells no more than the image
    single = column == UNIT and max(images.values(), default=0) < 2  # noqa: PLR2004
    of_patient: defaultdict[str, set[str]] = defaultdict(set)
    for line in lines:
        of_patient[line.patient].add(line.record.unit)
    found = ["image"] if not lines else []
    for line in lines:
        own = column == UNIT and line.record.unit in (
            line.record.id,
            line.record.image.name,
            line.record.image.stem,
        )
        # a table that gives one DICOM patient two units knows no patients
        divided = bool(line.patient) and len(of_patient[line.patient]) > 1
        weak = single or own or divided or not line.told
        found.append("image" if weak else told)
    return found


def _file(path: Path, names: Names, line: int, column: str, name: str) -> Path:
    found = names.find(path.parent, name) if name else []
    if not found:
        raise DataError(
            f"{path} line {line}: {column} '{name}' is not a file in {path.parent}; "
            "correct the path, which is relative to the csv"
        )
    if len(found) > 1:
        raise DataError(
            f"{path} line {line}: {column} '{name}' is two files in {path.parent}, whose "
            "names look equal and are written in other signs (Unicode NFC and NFD); "
            "remove or rename one"
        )
    return found[0]
