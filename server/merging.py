"""What becomes of the updates that a round accepted: weighed, bounded, merged."""

import logging
from collections.abc import Mapping
from statistics import median

from server.launch import Launch
from server.orders import round_words
from server.replies import Accepted
from server.weights import Weights
from vgmedgen.exchange import merge, payload
from vgmedgen.exchange.bound import bounded
from vgmedgen.exchange.merge import Update
from vgmedgen.exchange.schema import UPLINK

log = logging.getLogger(__name__)


def merged(
    launch: Launch, number: int, weights: Weights, accepted: Mapping[str, Accepted]
) -> tuple[Weights, dict[str, float]]:
    """Both groups after a round, and whose update was held to the size of the others'.

    It hangs on nothing but its arguments: a round that is played again ends the same.

    Args:
        launch: of the run.
        number: round, from 1.
        weights: both groups before it, float32.
        accepted: the replies, by site.

    Returns:
        The weights after the round; and for every site whose update changed more than
        `federation.norm_bound` allows, how many times the others' median it was.

    Raises:
        ExchangeError: if the merged weights could not be sent on.
    """
    federation = launch.config.federation
    words = round_words(launch, number)
    (group,) = UPLINK[words["stage"]]
    specs = launch.schema.groups[group]
    by_units = federation.weighting == "units"
    counts = {n: float(r.units) if by_units else 1.0 for n, r in accepted.items()}
    weighed = capped(counts, federation.weight_cap)
    updates = [Update(n, weighed[n], r.state) for n, r in accepted.items()]
    held = bounded(
        updates, payload.on_wire(weights[group], specs), federation.norm_bound
    )
    for name, times in held.beyond.items():
        log.warning(
            "the update of %s is %g times the others' size, and counts as %g times "
            "(federation.norm_bound)",
            *(name, times, federation.norm_bound),
        )
    found = merge.combine(
        launch.config.merge,
        words["stage"],
        int(words["turn"]),
        weights[group],
        held.updates,
    )
    payload.pack(found, specs)
    return {**weights, group: found}, held.beyond


def capped(counts: Mapping[str, float], cap: float) -> dict[str, float]:
    """Weights of sites, none above `cap` times the others' median; a cap of 0 is none.

    Nobody can check how many units a hospital has: one that claims a million would
    have the merged model to itself.
    """
    weights = dict(counts)
    if not cap or len(counts) < 2:  # noqa: PLR2004 - one, and another to compare with
        return weights
    for name, count in counts.items():
        most = cap * median(c for other, c in counts.items() if other != name)
        if count > most:
            log.warning(
                "%s counts as %.0f units, not %.0f (federation.weight_cap)",
                *(name, most, count),
            )
            weights[name] = most
    return weights
