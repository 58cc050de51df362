"""What the sources of `site.yaml` hold, in the units that train and those that never do."""

from collections.abc import Sequence
from pathlib import Path

from vgmedgen.data import adapters, split
from vgmedgen.data.records import Dataset
from vgmedgen.errors import DataError
from vgmedgen.siteconfig import SiteConfig, SiteSource


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
    if source.grouping and (lost := {*source.units} - {*dataset.units}):
        raise DataError(
            f"site.yaml lists the unit '{min(lost)}' of {root}, which {source.grouping} "
            "does not name; list units by the names that it gives them"
        )
    chosen = dataset.only(source.units)
    if not chosen.records:
        raise DataError(f"{root} holds none of the {len(source.units)} units listed")
    return chosen


def heldout(config: SiteConfig, datasets: Sequence[Dataset]) -> frozenset[str]:
    """Units of a site that never train: those that it lists, else a share by hash.

    Raises:
        DataError: if a listed unit is not there, or there are too few to divide.
    """
    units = {unit for dataset in datasets for unit in dataset.units}
    if config.heldout_units is None:
        return split.heldout(units, config.heldout, config.heldout_seed)
    # under another name, as a grouping may have given it, such a unit would train
    if lost := {*config.heldout_units} - units:
        raise DataError(
            f"heldout_units of site.yaml lists the unit '{min(lost)}', which no source "
            "has; list units by the names that the data, or their grouping, give them"
        )
    return frozenset(config.heldout_units)
