"""What one hostile or careless site can do to a round, and who hears of it."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from server.merging import capped, merged
from server.registry import Registry
from server.replies import Accepted
from tests.federation.toys import (
    ToySite,
    client_of,
    config,
    play,
    prepare,
    same,
    toys,
    weights,
)
from vgmedgen.training.order import Order

pytestmark = pytest.mark.simulation


def test_a_site_that_claims_a_million_units_does_not_have_the_model_to_itself(caplog):
    claimed = {"alpha": 100.0, "beta": 80.0, "gamma": 1e6}
    assert capped(claimed, 0) == claimed
    assert capped(claimed, 2) == {"alpha": 100.0, "beta": 80.0, "gamma": 180.0}
    assert "gamma counts as 180 units, not 1000000" in caplog.text
    assert capped({"alpha": 100.0, "beta": 1e6}, 2) == {"alpha": 100.0, "beta": 200.0}
    honest = {"alpha": 100.0, "beta": 180.0}
    assert capped(honest, 2) == honest
    assert capped({"alpha": 1e6}, 2) == {"alpha": 1e6}


@pytest.mark.parametrize(
    ("rule", "times"),
    [
        *(("average", 100.0), ("average", 10.0), ("average", -100.0)),
        *(("alternate", 100.0), ("freeze_a", -100.0), ("svd", 100.0)),
    ],
)
def test_one_hostile_site_is_held_to_the_size_of_the_others_and_named(
    tmp_path, rule, times, caplog
):
    """In the record, in the log and in the line that `run` shows, in both stages."""

    caplog.set_level(logging.INFO)

    class Hostile(ToySite):
        def train(self, order):
            outcome = super().train(order)
            group = order.weights["mapper" if order.stage == "align" else "lora"]
            state = {
                n: (group[n] + times * (a - group[n])).astype(np.float32)
                for n, a in outcome.state.items()
            }
            return replace(outcome, state=state)

    sites = [*toys(2), Hostile("gamma")]
    asked = config(merge=rule, norm_bound=2.0, weighting="uniform", evaluate=False)
    launch = prepare(tmp_path, sites, asked)
    play(launch, client_of(sites), sites)
    registry = Registry(tmp_path)
    for record in registry.rounds():
        assert record["counted"]
        assert record["sites"] == ["alpha", "beta", "gamma"]
        assert set(record["bounded"]) == {"gamma"}
        assert record["bounded"]["gamma"] > abs(times) / 2
    assert caplog.text.count("held to the bound gamma (") == 3
    # nobody moves the mean further than a site that is twice as far as an honest one
    for number, group in ((1, "mapper"), (2, "lora")):
        before, after = registry.weights(number - 1), registry.weights(number)
        parts = [after[group][n] - before[group][n] for n in after[group]]
        honest = 0.1 * np.sqrt(sum(part.size for part in parts))
        moved = np.sqrt(sum(np.square(part).sum() for part in parts))
        # svd cuts its factors anew, which by itself moves them
        assert moved < 2 * honest or (rule, group) == ("svd", "lora")


def test_honest_sites_are_not_held(tmp_path):
    sites = toys(3)
    asked = config(norm_bound=2.0, evaluate=False)
    play(prepare(tmp_path, sites, asked), client_of(sites), sites)
    assert not any(record["bounded"] for record in Registry(tmp_path).rounds())


def test_a_bounded_round_that_is_played_again_ends_with_the_same_bytes(tmp_path):
    launch = prepare(tmp_path, toys(), config(norm_bound=2.0))
    order = Order(
        run="toy-1", number=1, stage="align", plan=launch.config.plan, weights=weights()
    )
    told = {
        site.name: Accepted(
            words={}, numbers={"num-units": 10}, state=site.train(order).state, size=0
        )
        for site in toys()
    }
    huge = {name: 50 * array for name, array in told["gamma"].state.items()}
    told["gamma"] = replace(told["gamma"], state=huge)
    one, who = merged(launch, 1, weights(), told)
    again, who_again = merged(launch, 1, weights(), dict(reversed(told.items())))
    assert same(one, again)
    assert set(who) == set(who_again) == {"gamma"}
