"""What a site's own csv says of its images: their captions, and which show one patient.

A row names an image by file name, stem or record id. Rows of images that are not in the
dataset are passed over.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vgmedgen.data.joining import renamed
from vgmedgen.data.records import Dataset, Record
from vgmedgen.data.tables import nfc, read_rows
from vgmedgen.data.unitnames import check_alike, named
from vgmedgen.errors import DataError

log = logging.getLogger(__name__)


class _Word(NamedTuple):
    line: int
    value: str


def with_captions(dataset: Dataset, path: Path) -> Dataset:
    """Replace all captions by those of a csv with the columns image and caption.

    Raises:
        DataError: if an image has none, stands twice, or a row fits several images.
    """
    said = _read(path, "caption")
    records = tuple(
        replace(record, caption=word.value)
        for record, word in zip(
            dataset.records, _of_all(dataset, said, path, "caption"), strict=True
        )
    )
    _check_once(dataset, said, path)
    return replace(dataset, records=records)


def grouped(dataset: Dataset, path: Path) -> Dataset:
    """Join units as a csv with the columns image and unit says, under its names.

    The kind of the units stays what the adapter says: the promise of privacy must not
    grow by a file's word.

    Raises:
        DataError: if an image has no unit or two, a row fits several images, or a unit
            of the dataset would be divided.
    """
    said = _read(path, "unit")
    words = _of_all(dataset, said, path, "unit")
    _check_once(dataset, said, path)
    first: dict[str, tuple[Record, _Word]] = {}
    for record, word in zip(dataset.records, words, strict=True):
        other, before = first.setdefault(record.unit, (record, word))
        if before.value != word.value:
            raise DataError(
                f"{path} line {word.line}: '{record.image.name}' gets the unit "
                f"'{word.value}', but '{other.image.name}' on line {before.line} gets "
                f"'{before.value}', and both are of unit '{record.unit}'; a grouping may "
                "join units and not divide one: give both the same"
            )
    found = renamed(dataset, {unit: word.value for unit, (_, word) in first.items()})
    log.info(
        "%s: %s joins %d units into %d",
        dataset.name,
        path,
        len(first),
        len(found.units),
    )
    return found


def names_of(record: Record) -> tuple[str, ...]:
    """What a row may call an image, in the order in which it is looked for."""
    return nfc(record.image.name), nfc(record.image.stem), record.id


def own_names(dataset: Dataset) -> list[str]:
    """For each record a name that a csv can use, as no other image answers to it.

    Raises:
        DataError: if there is none.
    """
    held = Counter(name for one in dataset.records for name in {*names_of(one)})
    found: list[str] = []
    for record in dataset.records:
        name = next((name for name in names_of(record) if held[name] == 1), None)
        if name is None:
            raise DataError(
                f"{dataset.name}: no name of {record.image} is its own, for others have "
                "its file name, and its id is another's file name; rename the file"
            )
        found.append(name)
    return found


def _read(path: Path, column: str) -> dict[str, _Word]:
    said: dict[str, _Word] = {}
    for line, row in read_rows(path, ("image", column)):
        if not row[column]:
            raise DataError(
                f"{path} line {line}: the {column} of '{row['image']}' is empty; write "
                "one or remove the row together with its image"
            )
        name, value = nfc(row["image"]), row[column]
        if name in said:
            raise DataError(
                f"{path} line {line}: a second {column} for '{row['image']}'; an image "
                "may stand once: remove one of the rows"
            )
        if column == "unit":
            value = named(path, line, value)
        said[name] = _Word(line, value)
    if column == "unit":
        check_alike(path, said.values())
    return said


def _of_all(
    dataset: Dataset, said: Mapping[str, _Word], path: Path, column: str
) -> list[_Word]:
    """What is said of each record, in their order."""
    found: list[_Word] = []
    silent: list[str] = []
    for record in dataset.records:
        name = next((name for name in names_of(record) if name in said), None)
        if name is None:
            silent.append(record.image.name)
        else:
            found.append(said[name])
    if silent:
        raise DataError(
            f"{path} has no {column} for {len(silent)} of {len(dataset.records)} images, "
            f"the first is '{silent[0]}'; name images by file name, stem or record id"
        )
    return found


def _check_once(dataset: Dataset, said: Mapping[str, _Word], path: Path) -> None:
    """Refuse two rows for one image, and one row for two.

    Raises:
        DataError: naming the line.
    """
    owner: dict[int, Record] = {}
    for record in dataset.records:
        lines = sorted({said[name].line for name in names_of(record) if name in said})
        if len(lines) > 1:
            raise DataError(
                f"{path} line {lines[1]}: '{record.image.name}' stands on line "
                f"{lines[0]} too, under another of its names; an image may stand once: "
                "remove one of the rows"
            )
        other = owner.setdefault(lines[0], record)
        if other is not record:
            raise DataError(
                f"{path} line {lines[0]}: the name fits {other.image} and "
                f"{record.image}; name each by its record id, '{other.id}' and "
                f"'{record.id}'"
            )
