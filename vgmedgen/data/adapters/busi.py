"""BUSI as published: one folder per class, `name (n).png` beside its masks.

Source: Al-Dhabyani et al. 2020, doi 10.1016/j.dib.2019.104863. The files name no
patient, so the image is the unit.
"""

import re
from collections import defaultdict
from pathlib import Path

from vgmedgen.data.adapters.folders import own_folder, pictures, refuse, stem
from vgmedgen.data.records import Dataset, Record
from vgmedgen.errors import DataError

NAME = "busi"
CLASSES = ("benign", "malignant", "normal")
MASK = re.compile(r"(?P<image>.+)_mask(_\d+)?")


def read(root: Path) -> Dataset:
    """List the images of the class folders; several masks of one image are united.

    Raises:
        DataError: if there is no class folder, a lesion has no mask, or a mask has no
            image.
    """
    folder = own_folder(root, _holds_classes)
    if folder is None:
        raise DataError(
            f"{NAME}: none of the folders {', '.join(CLASSES)} in {root}; give the "
            "folder Dataset_BUSI_with_GT or the one above it"
        )
    records: list[Record] = []
    bare: list[str] = []
    stray: list[str] = []
    for label in CLASSES:
        images, masks = _pair(folder / label)
        records += [_record(path, masks[stem(path)], label) for path in images]
        if label != "normal":
            bare += [path.name for path in images if not masks[stem(path)]]
        known = {stem(path) for path in images}
        stray += [
            f"{name}_mask.png" for name in masks if name not in known and masks[name]
        ]
    refuse(NAME, "images have no mask", bare, "add NAME_mask.png or remove the images")
    refuse(NAME, "masks have no image", stray, "add the images or remove the masks")
    return Dataset(NAME, "ultrasound", "image", tuple(records))


def _holds_classes(folder: Path) -> bool:
    return any((folder / label).is_dir() for label in CLASSES)


def _pair(folder: Path) -> tuple[list[Path], defaultdict[str, list[Path]]]:
    """Images of one class, and the masks by the stem of their image."""
    images: list[Path] = []
    masks: defaultdict[str, list[Path]] = defaultdict(list)
    for path in pictures(folder) if folder.is_dir() else ():
        mask = MASK.fullmatch(stem(path))
        if mask:
            masks[mask["image"]].append(path)
        else:
            images.append(path)
    return images, masks


def _record(image: Path, masks: list[Path], label: str) -> Record:
    name = stem(image)
    return Record(name, image, tuple(masks), name, label, {"class": label})
