"""What the federated model is compared with: sites that train alone, and pooled data.

The very same site code does the work; only the exchange is missing.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.site import Site
from server.registry import Registry
from vgmedgen.config import FederationConfig, Plan
from vgmedgen.training.order import Order

Weights = dict[str, dict[str, np.ndarray]]


def train_alone(
    site: Site, plan: Plan, federation: FederationConfig, start: Weights, run: str
) -> Weights:
    """Train one site through the same rounds without anybody else.

    Returns:
        Its weights after the last round, both groups.
    """
    weights = start
    for number in range(1, federation.rounds + 1):
        stage = federation.stage(number)
        order = Order(run=run, number=number, stage=stage, plan=plan, weights=weights)
        group = "mapper" if stage == "align" else "lora"
        state = {name: np.asarray(a) for name, a in site.train(order).state.items()}
        weights = {**weights, group: state}
    return weights


def align_variants(plan: Plan) -> dict[str, Plan]:
    """The plans of the alignment study, by what they are called in its table."""
    own = replace(plan.align, common_start=False, anchor=0.0)
    common = replace(plan.align, common_start=True, anchor=0.0)
    anchored = replace(plan.align, common_start=True, anchor=plan.align.anchor or 1.0)
    return {
        "independent priors": replace(plan, align=own),
        "common start": replace(plan, align=common),
        "common start + anchor": replace(plan, align=anchored),
    }


def weights_after(folder: Path, number: int) -> Mapping[str, Mapping[str, np.ndarray]]:
    """Weights that a registry holds after a round."""
    return Registry(folder).weights(number)
