"""What the sources of `site.yaml` hold, in the units that train and those that never do."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from vgmedgen.data import adapters, split
from vgmedgen.data.records import Dataset
from vgmedgen.data.tables import nfc
from vgmedgen.data.unitnames import near_double
from vgmedgen.errors import DataError
from vgmedgen.site.config import SiteConfig, SiteSource


def read(source: SiteSource, folder: Path, *, identified: bool) -> Dataset:
    """What the adapter reads of one source, cut to the units that it lists.

    Args:
        source: its paths may be relative to `folder`.
        folder: the site's own.
        identified: whether DICOM files that still name somebody are let in.

    Raises:
        DataError: if a file is missing or wrong, or listed units are not there.
    """
    root = (folder / source.root).resolve()
    given = {
        name: (folder / path).resolve() if path else None
        for name, path in (("captions", source.captions), ("grouping", source.grouping))
    }
    dataset = adapters.read(source.dataset, root, identified=identified, **given)
    if source.units is None:
        return dataset
    listed = {nfc(unit) for unit in source.units}
    if lost := listed - {*dataset.units}:
        names = source.grouping or "the data"
        raise DataError(
            f"site.yaml lists the unit '{min(lost)}' of {root}, which {names} do not "
            f"name{_hint(min(lost), dataset.units)}; list units as they are written there"
        )
    if not listed:
        raise DataError(
            f"site.yaml lists no unit of {root}; name some, or remove the source"
        )
    return dataset.only(listed)


def check_names(datasets: Sequence[Dataset]) -> None:
    """Refuse a person whom two sources call by names that differ in case or blanks.

    Each source is held to that by itself; the names of single images say nothing.

    Raises:
        DataError: naming both.
    """
    kinds = [dataset for dataset in datasets if dataset.unit_kind != "image"]
    double = near_double(unit for dataset in kinds for unit in dataset.units)
    if len(kinds) > 1 and double:
        raise DataError(
            f"the sources of site.yaml have the units '{double[0]}' and '{double[1]}', "
            "which differ in case or blanks alone; write both alike, or let them differ "
            "by more"
        )


def heldout(config: SiteConfig, datasets: Sequence[Dataset]) -> frozenset[str]:
    """Units of a site that never train: those that it lists, else a share by hash.

    Raises:
        DataError: if a listed unit is not there, or there are too few to divide.
    """
    units = {unit for dataset in datasets for unit in dataset.units}
    if config.heldout_units is None:
        return split.heldout(units, config.heldout, config.heldout_seed)
    # under another name, as a grouping may have given it, such a unit would train
    listed = frozenset(map(nfc, config.heldout_units))
    if lost := listed - units:
        raise DataError(
            f"heldout_units of site.yaml lists the unit '{min(lost)}', which no source "
            f"has{_hint(min(lost), units)}; list units by the names that the data, or "
            "their grouping, give them"
        )
    return listed


def _hint(unit: str, known: Iterable[str]) -> str:
    near = get_close_matches(unit, known, n=1, cutoff=0.5)
    return f" ('{near[0]}' they have)" if near else ""
