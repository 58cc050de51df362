"""Kvasir-SEG as published: images, masks of the same names, boxes as json.

Source: Jha et al. 2020, doi 10.1007/978-3-030-37734-2_37. The files name no patient,
so the image is the unit.
"""

import json
from pathlib import Path

from vgmedgen.data.adapters.folders import own_folder, pictures, refuse, stem
from vgmedgen.data.records import Dataset, Record
from vgmedgen.data.tables import nfc
from vgmedgen.errors import DataError

NAME = "kvasir-seg"
BOXES = "kavsir_bboxes.json"  # spelt so by its authors


def read(root: Path) -> Dataset:
    """List the images; the box file is optional and gives the number of polyps.

    Raises:
        DataError: if a folder or a mask is missing, or the box file is malformed.
    """
    folder = own_folder(root, lambda path: (path / "images").is_dir())
    if folder is None:
        raise DataError(
            f"{NAME}: no folder images in {root}; give the folder Kvasir-SEG or the "
            "one above it"
        )
    if not (folder / "masks").is_dir():
        raise DataError(f"{NAME}: no mask folder masks in {folder}; unpack it there")
    masks = {stem(path): path for path in pictures(folder / "masks")}
    images = pictures(folder / "images")
    refuse(
        NAME,
        "images have no mask",
        [image.name for image in images if stem(image) not in masks],
        "add a mask of the same name or remove the images",
    )
    boxes = _boxes(folder / BOXES)
    records = [
        Record(
            name,
            image,
            (masks[name],),
            name,
            "polyp",
            {"polyps": str(boxes[name])} if name in boxes else {},
        )
        for name, image in ((stem(path), path) for path in images)
    ]
    return Dataset(NAME, "endoscopy", "image", tuple(records))


def _boxes(path: Path) -> dict[str, int]:
    """Number of boxes by image name; empty where the file is not there."""
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {nfc(name): len(entry["bbox"]) for name, entry in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not a json of boxes by image ({type(error).__name__}: {error});"
            " restore the published file or remove it"
        ) from error
