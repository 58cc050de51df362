"""What a release tells of the run that made it."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from server.launch import Launch
from server.registry import Registry
from vgmedgen.release.facts import range_of


def facts(launch: Launch, registry: Registry) -> dict[str, object]:
    """What a release tells of its run; the same for every time it is published.

    Of a site's data it tells the range that the number of units lies in, and of losses
    the mean over sites.
    """
    federation = launch.config.federation
    counted = [record for record in registry.rounds() if record["counted"]]
    units: dict[str, int] = {}
    for record in counted:
        units |= {site: int(record["units"][site]) for site in record["sites"]}
    told: dict[str, object] = {
        "run": launch.run,
        "experiment": launch.config.experiment,
        "config": launch.config.digest,
        "rounds": federation.rounds,
        "align_rounds": federation.align_rounds,
        "generate_rounds": federation.generate_rounds,
        "exchange": launch.schema.digest,
        "sites": sorted(units),
        "data": {site: range_of(units[site]) for site in sorted(units)},
    }
    privacy = launch.config.privacy
    if not privacy.enabled and (metrics := _metrics(counted)):
        told["metrics"] = metrics
    if privacy.enabled:
        told["privacy"] = {
            "epsilon": privacy.epsilon,
            "delta": privacy.delta,
            "unit": privacy.unit,
            "spent": _spent(registry),
        }
    return told


def _metrics(counted: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean losses over the sites of the last round that counted.

    Left out where fewer than two sites told theirs: a mean of one is that site's own.
    """
    if not counted:
        return {}
    told = {
        "training_loss": counted[-1]["loss"],
        "heldout_loss": counted[-1]["heldout_loss"],
    }
    return {
        name: float(f"{fmean(losses.values()):.4g}")
        for name, losses in told.items()
        if len(losses) > 1
    }


def _spent(registry: Registry) -> dict[str, float]:
    """What each site said last that it had spent, over all its runs."""
    found: dict[str, float] = {}
    for record in registry.rounds():
        found |= record["epsilon"]
    return dict(sorted(found.items()))
