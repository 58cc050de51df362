"""HAM10000 as published: two image folders, lesion masks, one table of metadata.

Source: Tschandl, Rosendahl, Kittler 2018, doi 10.1038/sdata.2018.161; files as on
Harvard Dataverse, doi 10.7910/DVN/DBW86T. A lesion is the unit: the table names no
patient.
"""

import logging
from pathlib import Path

from vgmedgen.data.adapters.folders import own_folder, pictures, refuse, stem
from vgmedgen.data.records import Dataset, Record
from vgmedgen.data.tables import nfc, read_rows
from vgmedgen.data.unitnames import check_alike, named
from vgmedgen.errors import DataError
from vgmedgen.files import is_hidden

NAME = "ham10000"
IMAGES, MASKS, TABLE = "HAM10000_images*", "*segmentations*", "HAM10000_metadata"
FACTS = ("dx", "dx_type", "age", "sex", "localization")
OPTIONAL = ("dataset",)  # some copies lack it; needed only for a split by source

log = logging.getLogger(__name__)


def read(root: Path) -> Dataset:
    """List the images that are there; rows of the table without an image are left out.

    Raises:
        DataError: if a folder, the table, a column, a row or a mask is missing, or an
            image stands in the table twice.
    """
    folder = own_folder(root, lambda path: any(_folders(path, IMAGES)))
    if folder is None:
        raise DataError(
            f"{NAME}: no folder {IMAGES} in {root}; unpack HAM10000_images_part_1 there"
        )
    images = [path for part in _folders(folder, IMAGES) for path in pictures(part)]
    masks = _masks(folder)
    rows = _metadata(folder)
    named = [image.name for image in images]
    refuse(
        NAME,
        "images have no row in the metadata",
        [image.name for image in images if stem(image) not in rows],
        f"add their rows to {TABLE}.csv or remove the images",
    )
    refuse(
        NAME,
        "images have no mask",
        [image.name for image in images if stem(image) not in masks],
        "add NAME_segmentation.png or remove the images",
    )
    if len(rows) > len(named):
        log.debug(
            "%s: %d of the %d images in the metadata are on disk",
            NAME,
            len(named),
            len(rows),
        )
    records = [_record(path, masks[stem(path)], rows[stem(path)]) for path in images]
    return Dataset(NAME, "dermoscopy", "lesion", tuple(records))


def _folders(folder: Path, pattern: str) -> list[Path]:
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.is_dir() and not is_hidden(path.name)
    )


def _masks(folder: Path) -> dict[str, Path]:
    found = _folders(folder, MASKS)
    if not found:
        raise DataError(
            f"{NAME}: no mask folder {MASKS} in {folder}; unpack "
            "HAM10000_segmentations_lesion_tschandl there"
        )
    return {
        stem(path).removesuffix("_segmentation"): path
        for part in found
        for path in pictures(part)
    }


def _metadata(folder: Path) -> dict[str, dict[str, str]]:
    table = next(
        (path for path in (folder / f"{TABLE}.csv", folder / TABLE) if path.is_file()),
        None,
    )
    if table is None:
        raise DataError(f"{NAME}: no {TABLE}.csv in {folder}; put it beside the images")
    rows: dict[str, dict[str, str]] = {}
    units: list[tuple[int, str]] = []
    for line, row in read_rows(table, ("lesion_id", "image_id", *FACTS), OPTIONAL):
        name = nfc(row["image_id"])
        if name in rows:
            raise DataError(
                f"{table} line {line}: a second row for the image '{row['image_id']}'; "
                "an image may stand once: remove one of the rows"
            )
        if not row["lesion_id"]:
            raise DataError(f"{table} line {line}: lesion_id is empty; fill it in")
        row["lesion_id"] = named(table, line, row["lesion_id"])
        units.append((line, row["lesion_id"]))
        rows[name] = row
    check_alike(table, units)
    return rows


def _record(image: Path, mask: Path, row: dict[str, str]) -> Record:
    facts = {name: row[name] for name in (*FACTS, *OPTIONAL) if row.get(name)}
    return Record(stem(image), image, (mask,), row["lesion_id"], row["dx"], facts)
