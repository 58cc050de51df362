"""Any dataset as a csv: columns image and caption, optional mask, unit, label, id.

Every other column becomes a fact. Paths are relative to the csv. Several masks of one
image are separated by `;`. Images and masks may be DICOM files. Without a column unit,
or where it is empty, the unit of a DICOM image is its patient, under a digest of the
patient's ID; any other image is a unit of its own.
"""

from pathlib import Path

from vgmedgen.data import dicom
from vgmedgen.data.records import Dataset, Record
from vgmedgen.data.tables import read_rows
from vgmedgen.errors import DataError

NAME = "table"
MANIFEST = "manifest.csv"
KNOWN = ("id", "image", "mask", "caption", "unit", "label")


def read(root: Path) -> Dataset:
    """List the rows of a csv, or of manifest.csv in a folder.

    Raises:
        DataError: if a column, an image, a mask or a caption is missing, or two rows
            have one id.
    """
    path = root / MANIFEST if root.is_dir() else root
    if not path.is_file():
        raise DataError(f"{NAME}: no {MANIFEST} in {root}; write one or name the csv")
    records: list[Record] = []
    lines: dict[str, int] = {}
    for line, row in read_rows(path, ("image", "caption")):
        record = _record(path, line, row)
        if record.id in lines:
            raise DataError(
                f"{path} line {line}: the id '{record.id}' stands on line "
                f"{lines[record.id]} too; an id may stand once: remove or rename one"
            )
        lines[record.id] = line
        records.append(record)
    grouped = any(record.unit != record.id for record in records)
    return Dataset(NAME, "", "patient" if grouped else "image", tuple(records))


def _record(path: Path, line: int, row: dict[str, str]) -> Record:
    if not row["caption"]:
        raise DataError(
            f"{path} line {line}: the caption is empty; write one or remove the row"
        )
    masks = [name.strip() for name in row.get("mask", "").split(";") if name.strip()]
    name = row.get("id") or row["image"]
    image = _file(path, line, "image", row["image"])
    return Record(
        name,
        image,
        tuple(_file(path, line, "mask", mask) for mask in masks),
        row.get("unit") or _patient(image) or name,
        row.get("label", ""),
        {key: value for key, value in row.items() if value and key not in KNOWN},
        row["caption"],
    )


def _patient(image: Path) -> str:
    return dicom.header(image).patient if dicom.is_dicom(image) else ""


def _file(path: Path, line: int, column: str, name: str) -> Path:
    found = path.parent / name
    if not name or not found.is_file():
        raise DataError(
            f"{path} line {line}: {column} '{name}' is not a file in {path.parent}; "
            "correct the path, which is relative to the csv"
        )
    return found
