"""Read a published dataset from its folder, as it is, into records.

Each adapter lists files and reads tables; none of them decodes an image.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from vgmedgen.data import dicom, synthetic
from vgmedgen.data.adapters import busi, given, ham10000, kvasir_seg, table
from vgmedgen.data.adapters.folders import OPENED, Names
from vgmedgen.data.joining import joined, renamed
from vgmedgen.data.records import Dataset, Record
from vgmedgen.errors import DataError
from vgmedgen.files import sha256

log = logging.getLogger(__name__)

_NAMED = 6  # attributes of a header that a refusal names

ADAPTERS: Mapping[str, Callable[[Path], Dataset]] = {
    "ham10000": ham10000.read,
    "busi": busi.read,
    "kvasir-seg": kvasir_seg.read,
    "table": table.read,
}


def read(
    dataset: str,
    root: Path,
    *,
    captions: Path | None = None,
    grouping: Path | None = None,
    identified: bool = False,
) -> Dataset:
    """List the records of one dataset.

    Of an image file only the header is read. Synthetic DICOM files are refused always: an
    archive's search must not bring a model's images in among those of patients. A PNG or
    JPEG of `vgmedgen synthesize` is let in where it says that a release gate cleared it,
    for to stand in for patients' images is what those are drawn for, and refused where
    it says that none did.

    Args:
        dataset: Name of the adapter: ham10000, busi, kvasir-seg or table.
        root: The dataset's own folder or the one above it; for table the csv itself
            or a folder that holds manifest.csv.
        captions: A csv with columns image, caption that replaces all captions; an
            image is named by file name, stem or record id.
        grouping: A csv with columns image, unit, all images in it, that joins units:
            those of one patient, or of one picture under several names.
        identified: whether DICOM files that still name somebody are let in.

    Raises:
        DataError: if the dataset is unknown, incomplete or malformed, a DICOM file is
            synthetic or still names somebody, a synthetic image was not cleared, or this
            user may not read what it needs.
    """
    adapter = ADAPTERS.get(dataset.replace("_", "-"))
    if adapter is None:
        raise DataError(
            f"there is no adapter for '{dataset}'; there are: {', '.join(ADAPTERS)}"
        )
    try:
        found = _listed(dataset, adapter, _as_written(root))
        _check_dicom(found, identified=identified)
        _check_cleared(found)
        if grouping is not None:
            found = given.grouped(found, _as_written(grouping))
        found = _twins_together(found)
    except PermissionError as error:
        raise DataError(
            f"{dataset}: {error.filename or root} cannot be read: permission denied; "
            f"{OPENED}"
        ) from None
    return (
        found if captions is None else given.with_captions(found, _as_written(captions))
    )


def _as_written(path: Path) -> Path:
    """A path in the form in which the disk has its letters, if there is one such."""
    if path.exists():
        return path
    found = Names().places(Path(), str(path))
    return found[0] if len(found) == 1 else path


def _listed(dataset: str, adapter: Callable[[Path], Dataset], root: Path) -> Dataset:
    if not root.exists():
        raise DataError(f"{dataset}: {root} does not exist; check the path")
    found = adapter(root)
    if not found.records:
        raise DataError(f"{dataset}: {root} holds no image; check the path")
    return found


def _check_dicom(dataset: Dataset, *, identified: bool) -> None:
    """Refuse DICOM files, under whatever name, that must not train.

    Raises:
        DataError: if one is synthetic, unreadable, or names somebody uninvited.
    """
    for record in dataset.records:
        for path in filter(dicom.is_dicom, (record.image, *record.masks)):
            told = dicom.header(path)
            if told.synthetic:
                raise DataError(
                    f"{path} says that it is a synthetic image; only images of patients "
                    "train a site: remove its row"
                )
            if told.identity and not identified:
                first, more = told.identity[:_NAMED], len(told.identity[_NAMED:])
                rest = f" and {more} more" if more else ""
                raise DataError(
                    f"{path} still identifies somebody, by {', '.join(first)}{rest}; "
                    "de-identify it (and set Patient Identity Removed to YES where "
                    "pseudonyms or descriptions stay), or let it in by "
                    "policy.identified_dicom: true in site.yaml (--identified of "
                    "vgmedgen data)"
                )


def _check_cleared(dataset: Dataset) -> None:
    """Refuse images of our own that no gate cleared: they may be copies of patients'.

    Raises:
        DataError: naming the first.
    """
    for record in dataset.records:
        if synthetic.is_uncleared(record.image):
            raise DataError(
                f"{record.image} says that it is a synthetic image that no release gate "
                "cleared; only cleared ones may train: remove it, or draw it again with "
                "the gate on"
            )


def _twins_together(dataset: Dataset) -> Dataset:
    """Give images with equal bytes one unit.

    Published sets hold copies, some under two labels (BUSI does). Apart, a copy could
    train at one site and be held out at another. What is joined so is remembered: a claim
    of privacy cannot stand on units that pixels decide.
    """
    sizes = Counter(record.image.stat().st_size for record in dataset.records)
    first: dict[str, Record] = {}  # by digest
    ties: list[tuple[Record, Record]] = []
    for record in dataset.records:
        # equal bytes need equal sizes, which spares reading most files
        if sizes[record.image.stat().st_size] > 1:
            other = first.setdefault(sha256(record.image), record)
            if other.unit != record.unit:
                ties.append((other, record))
    names = joined((one.unit, other.unit) for one, other in ties)
    if names:
        log.info(
            "%s: %d units hold a copy of another's image and count as one with it, the "
            "first is '%s'",
            dataset.name,
            len(names),
            min(names),
        )
    copies = tuple((one.image, other.image) for one, other in ties)
    return replace(renamed(dataset, names), copies=copies)
