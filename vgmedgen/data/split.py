"""Who gets which unit: sites, held-out units, and the checks before training.

A unit (patient, lesion or image) is never divided: all of its images go together.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from vgmedgen.data.images import file_digest
from vgmedgen.data.records import Dataset, Record
from vgmedgen.errors import DataError

MINIMUM = 8  # units that every site of a Dirichlet split gets

log = logging.getLogger(__name__)


def by_column(dataset: Dataset, column: str) -> dict[str, tuple[str, ...]]:
    """Sites from a fact, such as where an image was taken.

    A unit whose images lie under several values goes to the value of most of its
    images (of equals the first by name); how many do is logged.

    Returns:
        Units of each site, sorted, by the value of the column.

    Raises:
        DataError: if a record has no such fact.
    """
    values = _values(dataset, column)
    crossing = [unit for unit, counted in values.items() if len(counted) > 1]
    if crossing:
        log.warning(
            "%s: %d of %d units lie under several values of '%s', the first is '%s'; "
            "each went whole to the value of most of its images",
            dataset.name,
            len(crossing),
            len(values),
            column,
            min(crossing),
        )
    sites: defaultdict[str, list[str]] = defaultdict(list)
    for unit, counted in values.items():
        sites[_most(counted)].append(unit)
    return {site: tuple(sorted(units)) for site, units in sorted(sites.items())}


def dirichlet(
    dataset: Dataset, sites: int, alpha: float, seed: int, *, minimum: int = MINIMUM
) -> dict[str, tuple[str, ...]]:
    """Sites with uneven labels: each label's units are shared by Dirichlet weights.

    With one label only the sizes of the sites are uneven. A site that drew fewer than
    `minimum` units takes from the largest ones.

    Args:
        dataset: What to share.
        sites: How many sites; they are named site-1, site-2, ...
        alpha: Concentration, above 0; smaller is more uneven.
        seed: The same seed is the same split.
        minimum: Units that every site has in the end.

    Returns:
        Units of each site, sorted, by site.

    Raises:
        DataError: if there are fewer than `sites * minimum` units.

    Source: Hsu, Qi, Brown 2019, arXiv 1909.06335, label skew by Dirichlet draws.
    """
    labels = _labels(dataset)
    if len(labels) < sites * minimum:
        raise DataError(
            f"{dataset.name} has {len(labels)} units; {sites} sites of at least "
            f"{minimum} units need {sites * minimum}: lower data.sites or add data"
        )
    rng = np.random.default_rng(seed)
    shares: list[list[str]] = [[] for _ in range(sites)]
    for label in sorted(set(labels.values())):
        units = rng.permutation(
            sorted(u for u, named in labels.items() if named == label)
        )
        cuts = np.round(
            np.cumsum(rng.dirichlet(np.full(sites, alpha)))[:-1] * len(units)
        )
        parts = np.split(units, cuts.astype(int))
        for share, part in zip(shares, parts, strict=True):
            share.extend(map(str, part))
    _top_up(shares, minimum)
    return {
        f"site-{number}": tuple(sorted(share))
        for number, share in enumerate(shares, start=1)
    }


def heldout(units: Collection[str], share: float, seed: int) -> frozenset[str]:
    """Units that never train: those whose hash with the seed comes first.

    A unit's place in the order depends on its id and the seed only, so more data moves
    at most the units at the edge.

    Args:
        units: All units of a site.
        share: Of the units, in (0, 1); rounded, at least 1 and never all of them.
        seed: Of the run.

    Raises:
        DataError: if there are fewer than two units.
    """
    ordered = sorted(
        set(units), key=lambda unit: hashlib.sha256(f"{seed}:{unit}".encode()).digest()
    )
    if len(ordered) < 2:  # noqa: PLR2004
        raise DataError(
            f"{len(ordered)} unit cannot be divided into training and held-out units; "
            "a site needs at least 2: add data"
        )
    count = min(max(1, round(share * len(ordered))), len(ordered) - 1)
    return frozenset(ordered[:count])


def check_disjoint(sites: Mapping[str, Iterable[Record]]) -> None:
    """Refuse sites that share an image, be it by id or by the bytes of the file.

    Raises:
        DataError: naming the two sites and the image.
    """
    held = [(site, record) for site, records in sites.items() for record in records]
    _refuse_shared(held, {id(record): record.id for _, record in held}, "id")
    sizes = {id(record): record.image.stat().st_size for _, record in held}
    owners: defaultdict[int, set[str]] = defaultdict(set)
    for site, record in held:
        owners[sizes[id(record)]].add(site)
    # equal bytes need equal sizes, which spares reading most files
    suspects = [pair for pair in held if len(owners[sizes[id(pair[1])]]) > 1]
    digests = {id(record): file_digest(record.image) for _, record in suspects}
    _refuse_shared(suspects, digests, "content")


def check_enough(units: int, batch: int, site: str) -> None:
    """Refuse a site that cannot fill one batch with different units.

    Raises:
        DataError: if there are fewer units than a batch holds.
    """
    if units < batch:
        raise DataError(
            f"site {site} has {units} units to train on, fewer than one batch of "
            f"{batch}; lower the batch size or add data"
        )


def _values(dataset: Dataset, column: str) -> dict[str, Counter[str]]:
    values: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in dataset.records:
        if column not in record.facts:
            raise DataError(
                f"{dataset.name}: image '{record.id}' has no '{column}'; its facts are "
                f"{', '.join(record.facts) or 'none'}: choose another data.column or "
                "complete the table"
            )
        values[record.unit][record.facts[column]] += 1
    return values


def _labels(dataset: Dataset) -> dict[str, str]:
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in dataset.records:
        counted[record.unit][record.label] += 1
    return {unit: _most(labels) for unit, labels in counted.items()}


def _most(counted: Counter[str]) -> str:
    return min(counted, key=lambda value: (-counted[value], value))


def _top_up(shares: list[list[str]], minimum: int) -> None:
    """Move units one by one from the largest to the smallest share."""
    while min(map(len, shares)) < minimum:
        largest, smallest = max(shares, key=len), min(shares, key=len)
        smallest.append(largest.pop())


def _refuse_shared(
    held: Iterable[tuple[str, Record]], keys: Mapping[int, str], kind: str
) -> None:
    first: dict[str, tuple[str, Record]] = {}
    for site, record in held:
        owner, other = first.setdefault(keys[id(record)], (site, record))
        if owner != site:
            raise DataError(
                f"sites {owner} and {site} share an image by {kind}: {other.image} and "
                f"{record.image}; an image may lie at one site only: remove one of them"
            )
