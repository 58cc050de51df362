"""Units that turn out to be one: which go together, and under what name."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from vgmedgen.data.records import Dataset


def joined(ties: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What each unit that is tied to another, over however many, is called from now on.

    Units that hang together get the smallest of their names; who keeps its own is left
    out. The order of the ties does not matter.
    """
    lower: dict[str, str] = {}

    def lowest(unit: str) -> str:
        while unit in lower:
            unit = lower[unit]
        return unit

    for one, other in ties:
        low, high = sorted((lowest(one), lowest(other)))
        if low != high:
            lower[high] = low
    return {unit: lowest(unit) for unit in lower}


def renamed(dataset: Dataset, units: Mapping[str, str]) -> Dataset:
    """The same records under other units; a unit that is not named keeps its own."""
    records = tuple(
        replace(record, unit=units.get(record.unit, record.unit))
        for record in dataset.records
    )
    return replace(dataset, records=records)
