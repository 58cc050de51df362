"""Hold every site's update to the size of the others': arrays in, arrays out.

The size of an update is the Euclidean norm of its change, all tensors of the group
together: the text mapper's in an align round; in a generate round the LoRA factors', A
and B or the one that trained. It is taken of the factors and not of their product, so
that it bounds what every merge rule makes of them. Clipping a change by its norm before
a mean is Sun et al. 2019 (arXiv 1911.07963); the median instead of a fixed norm needs no
number that fits only one model.

The rule: no change is larger than `most` times the median of the *other* sites' sizes,
and none of its tensors changes more than twice that of what the others' do; what is larger
is shortened to that, its direction stays. The second half is for a change of an honest
size that lies in one tensor alone. Fewer than half of the sites may send what they like
without moving anybody else's bound beyond an honest size. Of two sites nobody can say
which is wrong: the larger is held to `most` times the smaller. A site that is alone has
nobody to be held against.

It sees what the sites have sent and nothing else, so a claim under differential privacy
stays as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import median

import numpy as np

from vgmedgen.errors import ExchangeError
from vgmedgen.exchange.merge import State, Update

TENSOR = 2.0  # times `most`: honest sites differ more in one tensor than in all of them
LEAST_SHARE = 0.01  # of the whole size: what a tensor may change that others left alone
LARGEST_RATIO = 1e6  # that is written down; beyond it a number says no more


@dataclass(frozen=True)
class Bounded:
    """Updates within the bound, and whose were beyond it."""

    updates: list[Update]
    beyond: dict[str, float]  # site -> size of its change over the others' median; of
    # all tensors together, or half of that of the tensor that is furthest beyond


def bounded(updates: Sequence[Update], start: State, most: float) -> Bounded:
    """The same updates, none of them changing more than `most` times what others do.

    Args:
        updates: of one round; each holds the same tensors.
        start: what the sites started from, as it arrived there; may hold more tensors.
        most: times the median size of the other sites' changes; 0 bounds nobody.

    Returns:
        The updates in the order of their sites; within the bound they are the very same.

    Raises:
        ExchangeError: if a tensor of an update is not in `start`.
    """
    ordered = sorted(updates, key=lambda update: update.site)
    if not most or len(ordered) < 2:  # noqa: PLR2004 - one, and another to compare with
        return Bounded(ordered, {})
    parts = {update.site: _sizes(update, start) for update in ordered}
    whole = {site: _whole(sizes) for site, sizes in parts.items()}
    held, beyond = [], {}
    for update in ordered:
        others = [site for site in parts if site != update.site]
        typical = median(whole[site] for site in others)
        shares, ratios = {}, [_ratio(whole[update.site], typical)]
        for name, size in parts[update.site].items():
            usual = median(parts[site].get(name, 0.0) for site in others)
            usual = max(usual, LEAST_SHARE * typical)
            shares[name] = min(1.0, TENSOR * most * usual / size) if size else 1.0
            ratios.append(_ratio(size, usual) / TENSOR)
        if max(ratios) <= most:
            held.append(update)
            continue
        left = _whole({n: shares[n] * s for n, s in parts[update.site].items()})
        share = min(1.0, most * typical / left) if left else 1.0
        shares = {name: share * part for name, part in shares.items()}
        held.append(_shortened(update, start, shares))
        beyond[update.site] = float(f"{max(ratios):.3g}")
    return Bounded(held, beyond)


def _sizes(update: Update, start: State) -> dict[str, float]:
    """Size of every tensor's change."""
    if unknown := sorted(update.state.keys() - start.keys()):
        raise ExchangeError(f"the update of {update.site} has a tensor {unknown[0]}")
    return {
        name: float(np.sqrt(np.square(_change(array, start[name])).sum()))
        for name, array in sorted(update.state.items())
    }


def _whole(sizes: Mapping[str, float]) -> float:
    return sqrt(sum(size * size for size in sizes.values()))


def _ratio(size: float, usual: float) -> float:
    if not usual:
        return LARGEST_RATIO if size else 0.0
    return min(size / usual, LARGEST_RATIO)


def _shortened(update: Update, start: State, shares: Mapping[str, float]) -> Update:
    """The update with the given share of the change of every tensor."""
    state = {
        name: (start[name] + shares[name] * _change(array, start[name])).astype(
            np.float32
        )
        for name, array in update.state.items()
    }
    return replace(update, state=state)


def _change(array: np.ndarray, before: np.ndarray) -> np.ndarray:
    change: np.ndarray = array.astype(np.float64) - before
    return change
