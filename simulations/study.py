"""What the federated model is compared with: sites that train alone, and pooled data.

The very same site code does the work; only the exchange is missing.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from simulations.measure import align_agreement
from vgmedgen.config.plan import RunPlan
from vgmedgen.config.run import FederationConfig
from vgmedgen.exchange.merge import Update, average
from vgmedgen.site.folder import Site
from vgmedgen.training.order import Order

Weights = dict[str, dict[str, np.ndarray]]


def train_alone(
    site: Site, plan: RunPlan, federation: FederationConfig, start: Weights, run: str
) -> Weights:
    """Train one site through the same rounds without anybody else.

    Returns:
        Its weights after the last round, both groups.
    """
    weights = start
    for number in range(1, federation.rounds + 1):
        stage = federation.stage(number)
        order = Order(
            run=run,
            number=number,
            stage=stage,
            plan=plan,
            weights=weights,
            turn=federation.turn(number),
        )
        group = "mapper" if stage == "align" else "lora"
        weights = {**weights, group: {**weights[group], **site.train(order).state}}
    return weights


def align_variants(plan: RunPlan) -> dict[str, RunPlan]:
    """The plans of the alignment study, by what they are called in its table."""
    own = replace(plan.align, common_start=False, anchor=0.0)
    common = replace(plan.align, common_start=True, anchor=0.0)
    anchored = replace(plan.align, common_start=True, anchor=plan.align.anchor or 1.0)
    return {
        "independent": replace(plan, align=own),
        "common_start": replace(plan, align=common),
        "anchor": replace(plan, align=anchored),
    }


def compare_alignment(
    sites: Sequence[Site],
    plan: RunPlan,
    federation: FederationConfig,
    start: Weights,
    run: str,
) -> dict[str, dict[str, dict[str, float]]]:
    """Agreement after the align rounds for every variant, same sites, same seeds."""
    found = {}
    for name, variant in align_variants(plan).items():
        own = f"{run}-{name}"
        weights = start
        for number in range(1, federation.align_rounds + 1):
            weights = _align_round(sites, variant, federation, weights, own, number)
        found[name] = align_agreement(
            sites, variant, own, federation.align_rounds, weights["mapper"]
        )
    return found


def _align_round(
    sites: Sequence[Site],
    plan: RunPlan,
    federation: FederationConfig,
    weights: Weights,
    run: str,
    number: int,
) -> Weights:
    order = Order(run=run, number=number, stage="align", plan=plan, weights=weights)
    updates = []
    for site in sites:
        outcome = site.train(order)
        units = outcome.units if federation.weighting == "units" else 1
        updates.append(Update(site=site.name, weight=float(units), state=outcome.state))
    return {**weights, "mapper": average(updates)}
