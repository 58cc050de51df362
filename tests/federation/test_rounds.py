"""Whole runs through Flower's real engine, in this process, over toy sites."""

import json
from dataclasses import replace

import numpy as np
import pytest

import server.app
from server.registry import Registry
from simulations import engine
from tests.federation.toys import (
    NAMES,
    ToySite,
    client_of,
    config,
    expected,
    play,
    prepare,
    publish,
    same,
    toys,
    weights,
)
from vgmedgen.errors import ConfigError, DataError, StateError, TrainingError
from vgmedgen.exchange.schema import ExchangeSchema

pytestmark = pytest.mark.simulation


def test_a_run_merges_every_round_and_installs_its_release(tmp_path):
    sites, published = toys(), {}

    def keep(folder, launch, told, final):
        published.update(final)
        return publish(folder, launch, told, final)

    launch = prepare(tmp_path, sites)
    play(launch, client_of(sites), sites, how=keep)
    registry = Registry(tmp_path)
    assert registry.run == "toy-1"
    records = registry.rounds()
    assert [r["stage"] for r in records] == ["align", "generate", "generate"]
    for record in records:
        assert record["counted"]
        assert record["sites"] == ["alpha", "beta", "gamma"]
        assert record["units"] == {"alpha": 10, "beta": 20, "gamma": 30}
        assert record["loss"] == {"alpha": 0.25, "beta": 0.25, "gamma": 0.25}
        assert set(record["bytes_to"]) == set(record["bytes_from"]) == set(NAMES[:3])
    assert records[0]["heldout_loss"] == {}
    assert records[1]["heldout_loss"] == dict.fromkeys(NAMES[:3], 1.5)
    for number in range(4):
        assert same(registry.weights(number), expected(launch, sites, number))
    installed = json.loads((tmp_path / "installed.json").read_text())
    assert set(installed["sites"]) == {"alpha", "beta", "gamma"}
    assert set(installed["sites"].values()) == {installed["manifest"]}
    for site in sites:
        order, manifest, signature = site.releases[0]
        assert signature is None
        told = json.loads(manifest)
        assert told["sites"] == ["alpha", "beta", "gamma"]
        assert told["data"] == {"alpha": "10-19", "beta": "20-49", "gamma": "20-49"}
        assert told["metrics"] == {"training_loss": 0.25, "heldout_loss": 1.5}
        assert told["exchange"] == launch.schema.digest
        assert same(order.weights, published)


def test_only_the_factor_that_trained_travels(tmp_path):
    sites = toys(2)
    asked = config(merge="alternate", evaluate=False)
    launch = prepare(tmp_path, sites, asked)
    sent = []

    def listen(message, context, call_next):
        reply = call_next(message, context)
        if message.metadata.message_type == "train":
            sent.append(reply.content["update"])
        return reply

    play(launch, client_of(sites, mods=[listen]), sites)
    # B (5, 2) before A (2, 8), whatever round of the run generate begins in.
    assert [record["lora"].shape for record in sent[2:]] == [(10,)] * 2 + [(16,)] * 2
    registry = Registry(tmp_path)
    before, after = registry.weights(1)["lora"], registry.weights(2)["lora"]
    assert before["dit.to_q.A"].tobytes() == after["dit.to_q.A"].tobytes()
    assert before["dit.to_q.B"].tobytes() != after["dit.to_q.B"].tobytes()


@pytest.mark.parametrize("rule", ["freeze_a", "svd", "trimmed_mean"])
def test_every_other_rule_runs_to_the_end(tmp_path, rule):
    sites = toys()
    asked = config(merge=rule, weighting="uniform", generate_rounds=1, evaluate=False)
    play(prepare(tmp_path, sites, asked), client_of(sites), sites)
    assert all(record["counted"] for record in Registry(tmp_path).rounds())


def test_who_cannot_take_part_is_named_before_round_one(tmp_path, caplog):
    other = weights()
    other["lora"]["dit.to_q.A"] = other["lora"]["dit.to_q.A"][:1]
    sites = [
        *toys(2),
        ToySite("gamma", base_digest="f" * 64),
        ToySite("delta", shape_of=other),
        ToySite("beta"),
    ]
    launch = prepare(tmp_path, sites, config(generate_rounds=1, evaluate=False))
    play(launch, client_of(sites), sites)
    assert "gamma has base bundle ffffffffffff" in caplog.text
    assert f"delta would exchange {ExchangeSchema.of(other).digest[:12]}" in caplog.text
    assert "another node is beta" in caplog.text
    assert all(r["sites"] == ["alpha", "beta"] for r in Registry(tmp_path).rounds())
    assert not sites[2].orders
    assert not sites[3].orders


def test_too_few_sites_stop_the_run_with_a_reason(tmp_path):
    class Broken(ToySite):
        def schema(self, plan):
            raise DataError("no masks in /data/ward-7/patient-0815")

    sites = [ToySite("alpha"), Broken("beta")]
    launch = prepare(tmp_path, sites, config(wait_s=10.0))
    with pytest.raises(
        StateError, match=r"1 of the 2 sites .* refused: VG20"
    ) as caught:
        play(launch, client_of(sites), sites)
    assert "patient" not in str(caught.value)
    assert Registry(tmp_path).last_complete() == 0


def test_a_round_with_too_few_sites_changes_nothing_and_the_run_goes_on(tmp_path):
    class Tired(ToySite):
        def train(self, order):
            if order.number == 2:
                raise TrainingError("loss is nan")
            return super().train(order)

    sites = [ToySite("alpha"), Tired("beta")]
    play(prepare(tmp_path, sites), client_of(sites), sites)
    registry = Registry(tmp_path)
    assert [r["counted"] for r in registry.rounds()] == [True, False, True]
    assert registry.rounds()[1]["left_out"] == {"beta": "VG50"}
    assert same(registry.weights(1), registry.weights(2))
    assert not same(registry.weights(2), registry.weights(3))


def test_updates_that_merge_to_something_unsendable_change_nothing(tmp_path, caplog):
    class Huge(ToySite):
        def train(self, order):
            outcome = super().train(order)
            state = {name: np.full_like(a, 9_000) for name, a in outcome.state.items()}
            return replace(outcome, state=state)

    sites = [Huge("alpha"), Huge("beta")]
    asked = config(merge="svd", generate_rounds=1, evaluate=False)
    play(prepare(tmp_path, sites, asked), client_of(sites), sites)
    registry = Registry(tmp_path)
    assert [r["counted"] for r in registry.rounds()] == [True, False]
    assert "do not merge" in caplog.text
    assert same(registry.weights(1), registry.weights(2))


def test_a_server_that_is_not_told_its_run_says_so():
    with pytest.raises(ConfigError, match="run-file"):
        engine.drive(server.app.app, client_of([]), sites=1, run_config={})
