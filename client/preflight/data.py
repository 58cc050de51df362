"""Examines the site's data: read by their adapters, told in ranges.

Every image is looked at once, as training will; what was found is remembered in the
site's folder, and nothing else is prepared, cached or booked. What a fault says may name a
file, since somebody has to find it; what is in order is told so that it may be read outside
the hospital.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from client.preflight.finding import Caution, Finding, examined, in_range
from client.preflight.place import Place
from vgmedgen.cli.shared import progress_of
from vgmedgen.data.records import Dataset, Record
from vgmedgen.errors import DataError, PolicyError, VGMedGenError
from vgmedgen.site.config import SiteSource

INSPECTED = "inspected.json"  # in the site's folder: what was found of its images
_NAMED = 5  # images that a caution names
_MANY = 200  # images that are looked at without a word about how long it takes

log = logging.getLogger(__name__)

_Read = Callable[[], Dataset]


def sources(place: Place) -> list[Finding]:
    """One finding for each source of site.yaml; a broken one hides no other."""
    listed = place.site.config.sources
    try:
        place.datasets = [*place.site.datasets]
        read: list[_Read] = [partial(_same, dataset) for dataset in place.datasets]
    except VGMedGenError:  # which one of them it is, each says for itself
        read = [partial(_alone, place, source) for source in listed]
    return [
        examined(
            f"data {number}" if len(listed) > 1 else "data",
            partial(_source, place, source, one),
            f"vgmedgen data check {source.dataset} {source.root}",
        )
        for number, (source, one) in enumerate(zip(listed, read, strict=True), start=1)
    ]


def masks(place: Place) -> str | Caution:
    """Which images have a mask, and which masks a person should look at."""
    records = _records(place)
    without = sum(not record.masks for record in records)
    odd = [one for one in place.inspected if one.cautions]
    if odd:
        few = "; ".join(
            f"{one.record.image.name}: {', '.join(one.cautions)}"
            for one in odd[:_NAMED]
        )
        return Caution(
            f"{len(odd)} of {in_range(len(records))} deserve a look",
            f"{few}; see them by vgmedgen data check … --page check.html",
        )
    if not without:
        return "every image has one"
    told = f"missing for {in_range(without)} of {in_range(len(records))} images"
    return Caution(told, "images without a mask count as images without a lesion")


def captions(place: Place) -> str:
    """Where the captions come from."""
    records = _records(place)
    given = sum(record.caption is not None for record in records)
    if given == len(records):
        return "every image has one of its own"
    made = f"made from facts and pixels for {in_range(len(records) - given)} images"
    return f"{made}, given for {in_range(given)}" if given else made


def least_units(place: Place) -> str:
    """As many units train as the policy asks for."""
    site, least = place.site, place.policy.min_units
    units = {unit for dataset in place.datasets for unit in dataset.units}
    training = len(units - site.heldout_units)
    if training < least:
        raise PolicyError(
            f"{in_range(training)} units would train, policy.min_units asks for {least}; "
            "add data, or lower it if the hospital allows that"
        )
    return f"no fewer than {least} units train, as policy.min_units asks"


def release_gate(place: Place) -> str | Caution:
    """Whether the release gate can open with the units as they are."""
    from vgmedgen.gate.calibration import (  # noqa: PLC0415 - brings numpy
        FEWEST,
        FIRM,
        least_rate,
        rank_of,
    )

    site, units = place.site, {record.unit for record in _records(place)}
    training = len(units - site.heldout_units)
    heldout = sum(record.unit in site.heldout_units for record in _records(place))
    if heldout < FEWEST or training < FEWEST:
        few, what = (
            (heldout, "images are held out")
            if heldout < FEWEST
            else (training, "units train")
        )
        return Caution(
            f"cannot open: {in_range(few)} {what}, it needs {FEWEST}",
            "no synthetic image can be cleared here: add data"
            + (", or raise heldout in site.yaml" if heldout < FEWEST else ""),
        )
    rate = site.config.gate.false_alarms
    held = len(units & site.heldout_units)
    firm = rank_of(held, rate) >= FIRM
    told = (
        f"can open: its threshold is {'a rank among' if firm else 'read off the tail of'} "
        f"{in_range(held)} held-out units, for false alarms of {100 * rate:g} %"
    )
    if least_rate(held) <= rate:
        return f"{told} at most"
    return f"{told}, which is an estimate: so few units promise no such small rate"


def _alone(place: Place, source: SiteSource) -> Dataset:
    """What one source of the site holds."""
    from vgmedgen.site.folder import Site  # noqa: PLC0415 - brings torch

    site = Site(place.folder)
    site.config = replace(site.config, sources=[source])
    return site.datasets[0]


def _source(place: Place, source: SiteSource, read: _Read) -> str:
    from vgmedgen.data import inspection  # noqa: PLC0415 - brings torch
    from vgmedgen.training.accountable import check_structure  # noqa: PLC0415

    dataset = read()
    if place.site.privacy.epsilon > 0:  # then only runs with a claim train here
        check_structure([dataset], place.site.name)
    records = dataset.records
    for path in (path for record in records for path in (record.image, *record.masks)):
        if not os.access(path, os.R_OK):
            raise DataError(
                f"{path} cannot be read by the user that runs the node; mend its "
                "permissions, or restore the file"
            )
    memory = inspection.Memory(place.folder / INSPECTED)
    new = sum(not memory.knows(record) for record in records)
    if new > _MANY:
        log.info("looks at %d images of %s once; this takes a while", new, source.root)
    with progress_of("looking at images", len(records)) as advance:
        found = inspection.inspect(records, memory, advance)
    memory.save()
    place.inspected += found
    inspection.check(found, source.dataset)
    labels = Counter(record.label or "no label" for record in records)
    classes = ", ".join(f"{name} {in_range(n)}" for name, n in sorted(labels.items()))
    return (
        f"{source.dataset}: {in_range(len(records))} images, "
        f"{in_range(len(dataset.units))} units ({dataset.unit_kind}); {classes}"
    )


def _same(dataset: Dataset) -> Dataset:
    return dataset


def _records(place: Place) -> list[Record]:
    return [record for dataset in place.datasets for record in dataset.records]
