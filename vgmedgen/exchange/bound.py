"""Hold every site's update to the size of the others': arrays in, arrays out.

The size of an update is the Euclidean norm of its change, all tensors of the group
together: the text mapper's in an align round; in a generate round the LoRA factors', A
and B or the one that trained. It is taken of the factors and not of their product, so
that it bounds what every merge rule makes of them. Clipping a change by its norm before
a mean is Sun et al. 2019 (arXiv 1911.07963); the median instead of a fixed norm needs no
number that fits only one model.

The rule: no change is larger than `most` times the median of the *other* sites' sizes; a
larger one is shortened to that, its direction stays. Up to one site below half of all may
send what it likes without moving anybody else's bound beyond an honest size. Of two sites
nobody can say which is wrong: the larger is held to `most` times the smaller. A site that
is alone has nobody to be held against.

It sees what the sites have sent and nothing else, so a claim under differential privacy
stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from vgmedgen.errors import ExchangeError
from vgmedgen.exchange.merge import State, Update

LARGEST_RATIO = (
    1e6  # that is written down; beyond it, or against nothing, it says no more
)


@dataclass(frozen=True)
class Bounded:
    """Updates within the bound, and whose were beyond it."""

    updates: list[Update]
    beyond: dict[str, float]  # site -> size of its change over the others' median


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
    sizes = {update.site: _size(update, start) for update in ordered}
    held, beyond = [], {}
    for update in ordered:
        own = sizes[update.site]
        typical = median(s for site, s in sizes.items() if site != update.site)
        if own <= most * typical:
            held.append(update)
            continue
        held.append(_shortened(update, start, most * typical / own))
        ratio = own / typical if typical else LARGEST_RATIO
        beyond[update.site] = float(f"{min(ratio, LARGEST_RATIO):.3g}")
    return Bounded(held, beyond)


def _size(update: Update, start: State) -> float:
    if unknown := sorted(update.state.keys() - start.keys()):
        raise ExchangeError(f"the update of {update.site} has a tensor {unknown[0]}")
    squares = (
        float(np.square(_change(array, start[name])).sum())
        for name, array in sorted(update.state.items())
    )
    return float(np.sqrt(sum(squares)))


def _shortened(update: Update, start: State, share: float) -> Update:
    """The update with `share` of its change."""
    state = {
        name: (start[name] + share * _change(array, start[name])).astype(np.float32)
        for name, array in update.state.items()
    }
    return replace(update, state=state)


def _change(array: np.ndarray, before: np.ndarray) -> np.ndarray:
    change: np.ndarray = array.astype(np.float64) - before
    return change
