"""Whole runs through Flower's real engine, in this process, over toy sites."""

import errno
import json
import logging
import os
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from server.registry import Registry
from tests.federation.toys import (
    NAMES,
    ToySite,
    answer_to,
    client_of,
    config,
    play,
    prepare,
    publish,
    weights,
    with_words,
)
from vgmedgen.errors import DataError, StateError, TrainingError
from vgmedgen.exchange import merge
from vgmedgen.exchange.merge import Update
from vgmedgen.exchange.payload import on_wire
from vgmedgen.exchange.schema import NUMBERS, WORDS, ExchangeSchema

pytestmark = pytest.mark.simulation

SECRET = "/data/ward-7/patient-0815.png"


def toys(count=3):
    return [ToySite(name) for name in NAMES[:count]]


def same(one, other):
    return all(
        one[group][name].tobytes() == other[group][name].tobytes()
        for group in one
        for name in one[group]
    )


def test_a_run_merges_every_round_and_installs_its_release(tmp_path):
    sites = toys()
    launch = prepare(tmp_path, sites)
    play(launch, client_of(sites), sites)
    registry = Registry(tmp_path)
    assert registry.run == "toy-1"
    assert [r["stage"] for r in registry.rounds()] == ["align", "generate", "generate"]
    for record in registry.rounds():
        assert record["counted"]
        assert record["sites"] == ["alpha", "beta", "gamma"]
        assert record["units"] == {"alpha": 10, "beta": 20, "gamma": 30}
        assert record["loss"] == {"alpha": 0.25, "beta": 0.25, "gamma": 0.25}
        assert set(record["bytes_to"]) == set(record["bytes_from"]) == set(NAMES[:3])
    assert registry.rounds()[0]["heldout_loss"] == {}
    assert registry.rounds()[1]["heldout_loss"] == dict.fromkeys(NAMES[:3], 1.5)
    installed = json.loads((tmp_path / "installed.json").read_text())
    assert set(installed["sites"]) == {"alpha", "beta", "gamma"}
    assert set(installed["sites"].values()) == {installed["manifest"]}


def test_the_merge_of_a_round_is_the_weighted_mean_of_what_was_sent(tmp_path):
    sites = toys()
    launch = prepare(tmp_path, sites)
    play(launch, client_of(sites), sites)
    specs = launch.schema.groups["mapper"]
    first = weights()["mapper"]
    updates = []
    for site in sites:
        order = replace(
            site.orders[0], weights={"mapper": on_wire(first, specs), "lora": {}}
        )
        state = on_wire(ToySite(site.name).train(order).state, specs)
        updates.append(Update(site.name, 10.0 * site.number, state))
    wanted = merge.average(updates)
    found = Registry(tmp_path).weights(1)
    for name in wanted:
        assert found["mapper"][name].tobytes() == wanted[name].tobytes()
    assert same({"lora": found["lora"]}, {"lora": weights()["lora"]})


def test_the_release_that_sites_install_is_made_of_what_the_server_published(tmp_path):
    sites, published = toys(), {}

    def keep(folder, launch, told, final):
        published.update(final)
        return publish(folder, launch, told, final)

    launch = prepare(tmp_path, sites)
    play(launch, client_of(sites), sites, how=keep)
    for site in sites:
        order, manifest = site.releases[0]
        assert json.loads(manifest)["sites"] == ["alpha", "beta", "gamma"]
        assert same(order.weights, published)


@pytest.mark.parametrize(
    ("rule", "turn_one", "turn_two"), [("alternate", "B", "A"), ("freeze_a", "B", "B")]
)
def test_only_the_factor_that_trained_travels(tmp_path, rule, turn_one, turn_two):
    sites = toys(2)
    launch = prepare(tmp_path, sites, config(merge=rule, evaluate=False))
    sent = []

    def listen(message, context, call_next):
        reply = call_next(message, context)
        if message.metadata.message_type == "train":
            sent.append(reply.content["update"])
        return reply

    play(launch, client_of(sites, mods=[listen]), sites)
    sizes = {"A": 16, "B": 10}
    assert [record["lora"].shape for record in sent[2:]] == [
        (sizes[factor],) for factor in (turn_one, turn_one, turn_two, turn_two)
    ]
    registry = Registry(tmp_path)
    before, after = registry.weights(1)["lora"], registry.weights(2)["lora"]
    assert before["dit.to_q.A"].tobytes() == after["dit.to_q.A"].tobytes()
    assert before["dit.to_q.B"].tobytes() != after["dit.to_q.B"].tobytes()


@pytest.mark.parametrize("rule", ["svd", "median", "trimmed_mean"])
def test_every_other_rule_runs_to_the_end(tmp_path, rule):
    sites = toys()
    play(prepare(tmp_path, sites, config(merge=rule)), client_of(sites), sites)
    assert all(record["counted"] for record in Registry(tmp_path).rounds())


# --- nothing but the schema crosses ------------------------------------------------


class Wire:
    """Every message in either direction, as records and as bytes."""

    def __init__(self):
        self.down, self.up, self.raw = [], [], b""

    def __call__(self, message, context, call_next):
        self._keep(message, self.down)
        reply = call_next(message, context)
        self._keep(reply, self.up)
        return reply

    def _keep(self, message, where):
        where.append((message.metadata.message_type, message))
        self.raw += b"".join(
            o.deflate() for o in get_all_nested_objects(message).values()
        )


def only_schema(content, schema):
    for record in content.array_records.values():
        for group, array in record.items():
            assert array.dtype == "float16"
            assert array.shape == (schema.size(group),)
            assert len(array.data) == 2 * schema.size(group) + 128
            assert np.isfinite(array.numpy()).all()
    for record in content.metric_records.values():
        assert set(record) == set(NUMBERS)
        assert all(isinstance(value, int | float) for value in record.values())
    for record in content.config_records.values():
        assert set(record) <= set(WORDS)
        assert all(isinstance(value, str) for value in record.values())


def test_nothing_but_schema_tensors_numbers_and_words_crosses(tmp_path):
    sites, wire = toys(), Wire()
    launch = prepare(tmp_path, sites)
    play(launch, client_of(sites, mods=[wire]), sites)
    schema = launch.schema
    assert len(wire.down) == len(wire.up) == 3 * (1 + 3 + 2 + 1)
    for kind, message in wire.down:
        only_schema(message.content, schema)
        records = {"order"} if kind == "query.hello" else {"order", "weights"}
        assert set(message.content) == records
    for kind, reply in wire.up:
        only_schema(reply.content, schema)
        assert set(reply.content) == {
            "query.hello": {"origin"},
            "train": {"origin", "numbers", "update"},
            "evaluate": {"origin", "numbers"},
            "query.install": {"origin"},
        }[kind]
    train = [reply for kind, reply in wire.up if kind == "train"]
    assert [set(reply.content["update"]) for reply in train] == (
        [{"mapper"}] * 3 + [{"lora"}] * 6
    )


def test_what_a_site_says_in_an_exception_never_reaches_the_server(tmp_path, caplog):
    class Careless(ToySite):
        def train(self, order):
            raise ValueError(f"cannot read {SECRET}")

    sites, wire = [*toys(2), Careless("gamma")], Wire()
    caplog.set_level(logging.INFO)
    launch = prepare(tmp_path, sites)
    play(launch, client_of(sites, mods=[wire]), sites)
    assert SECRET.encode() not in wire.raw
    assert b"patient" not in wire.raw
    errors = [reply.error for _, reply in wire.up if reply.has_error()]
    assert len(errors) == 3
    assert all(error == Error(code=100, reason="VG00") for error in errors)
    for path in tmp_path.rglob("*.json"):
        assert "patient" not in path.read_text()
    said = [r for r in caplog.records if r.name.startswith("server")]
    assert not any("patient" in record.getMessage() for record in said)
    assert any("left out gamma (VG00)" in record.getMessage() for record in said)
    # At the site itself the whole story is in the log.
    assert SECRET in caplog.text


# --- bad replies -------------------------------------------------------------------


def spoil(how, name="gamma"):
    def tamper(site, message, reply):
        train = message.metadata.message_type == "train" and reply.has_content()
        return how(message, reply) if site.name == name and train else reply

    return tamper


def _update(change):
    def how(message, reply):
        group = next(iter(reply.content["update"]))
        flat = reply.content["update"][group].numpy()
        reply.content["update"] = ArrayRecord(change(group, flat))
        return reply

    return how


def _number(name, value):
    def how(message, reply):
        reply.content["numbers"] = MetricRecord(
            {**reply.content["numbers"], name: value}
        )
        return reply

    return how


def _nan(group, flat):
    flat[3] = np.nan
    return {group: Array(flat)}


BAD = {
    "NaN": _update(_nan),
    "another type": _update(lambda g, f: {g: Array(f.astype(np.float32))}),
    "too short": _update(lambda g, f: {g: Array(f[:-1])}),
    "another group": _update(lambda g, f: {"visual_prior": Array(f)}),
    "one group more": _update(lambda g, f: {g: Array(f), "optimiser": Array(f)}),
    "a huge weight": _number("num-units", 1e9),
    "a negative weight": _number("num-units", -5),
    "no unit": _number("num-units", 0),
    "a loss that is not finite": _number("loss-sum", float("nan")),
    "one number more": _number("per-sample-loss", 0.3),
    "another site's name": lambda m, r: with_words(r, site="alpha"),
    "another round": lambda m, r: with_words(r, round="99"),
    "another base": lambda m, r: with_words(r, base="0" * 64),
    "another schema": lambda m, r: with_words(r, exchange="0" * 64),
    "a word more": lambda m, r: with_words(r, note=SECRET),
    "a record more": lambda m, r: r.content.update(
        {"extra": ArrayRecord({"x": Array(np.zeros(3))})}
    )
    or r,
    "an error text": lambda m, r: Message(Error(code=2, reason=SECRET), reply_to=m),
    "a code that is none": lambda m, r: Message(
        Error(code=100, reason=SECRET), reply_to=m
    ),
}


@pytest.mark.parametrize("fault", sorted(BAD))
def test_a_bad_reply_is_left_out_and_named(tmp_path, fault, caplog):
    sites = toys()
    caplog.set_level(logging.INFO, logger="server")
    once = config(generate_rounds=1, evaluate=False)
    launch = prepare(tmp_path / "bad", sites, once)
    play(launch, client_of(sites, tamper=spoil(BAD[fault])), sites)
    for record in Registry(tmp_path / "bad").rounds():
        assert record["counted"]
        assert record["sites"] == ["alpha", "beta"]
        assert list(record["left_out"]) == ["gamma"]
        assert record["left_out"]["gamma"] in {"VG30", "VG15", "FL02"}
    assert "left out gamma" in caplog.text
    assert SECRET not in caplog.text
    # Left out means left out: the result is that of the two others alone.
    pair = toys(2)
    play(prepare(tmp_path / "two", pair, once), client_of(pair), pair)
    assert same(
        Registry(tmp_path / "bad").weights(2), Registry(tmp_path / "two").weights(2)
    )


@pytest.mark.parametrize(
    "state",
    [
        lambda state: {**state, "dit.extra": np.zeros(2)},
        lambda state: dict(list(state.items())[1:]),
        lambda state: {n: a.T for n, a in state.items()},
        lambda state: {n: np.full_like(a, np.inf) for n, a in state.items()},
        lambda state: {n: np.full_like(a, 1e6) for n, a in state.items()},
    ],
)
def test_a_site_that_computes_something_else_sends_nothing(tmp_path, state):
    class Wrong(ToySite):
        def train(self, order):
            outcome = super().train(order)
            return replace(outcome, state=state(outcome.state))

    sites, wire = [*toys(2), Wrong("gamma")], Wire()
    launch = prepare(tmp_path, sites, config(generate_rounds=1, evaluate=False))
    play(launch, client_of(sites, mods=[wire]), sites)
    assert all(
        record["left_out"] == {"gamma": "VG30"} for record in Registry(tmp_path).rounds()
    )
    assert sum(reply.has_error() for _, reply in wire.up) == 2


def test_a_site_that_is_late_is_left_out_and_the_round_goes_on(tmp_path):
    sites = toys()

    def silent(message, context, call_next):
        reply = call_next(message, context)
        late = sites[context.node_config["partition-id"]].name == "gamma"
        if late and message.metadata.message_type == "train":
            # Flower stores no reply to a message that does not exist.
            reply.metadata.__dict__["_reply_to_message_id"] = "elsewhere"
        return reply

    asked = config(generate_rounds=1, evaluate=False, round_timeout_s=1.5)
    launch = prepare(tmp_path, sites, asked)
    play(launch, client_of(sites, mods=[silent]), sites)
    for record in Registry(tmp_path).rounds():
        assert record["left_out"] == {"gamma": "late"}
        assert record["counted"]


# --- who takes part ----------------------------------------------------------------


def test_a_site_on_another_base_is_named_before_round_one(tmp_path, caplog):
    sites = [*toys(2), ToySite("gamma", base_digest="f" * 64)]
    caplog.set_level(logging.INFO, logger="server")
    launch = prepare(tmp_path, sites)
    play(launch, client_of(sites), sites)
    assert "gamma has base bundle ffffffffffff" in caplog.text
    assert not sites[2].orders
    assert all(r["sites"] == ["alpha", "beta"] for r in Registry(tmp_path).rounds())


def test_a_site_with_another_schema_is_named_before_round_one(tmp_path, caplog):
    other = weights()
    other["lora"]["dit.to_q.A"] = np.zeros((4, 8), np.float32)
    sites = [*toys(2), ToySite("gamma", shape_of=other)]
    launch = prepare(tmp_path, sites)
    play(launch, client_of(sites), sites)
    digest = ExchangeSchema.of(other).digest[:12]
    assert f"gamma would exchange {digest}" in caplog.text
    assert not sites[2].orders


def test_two_nodes_cannot_be_one_site(tmp_path, caplog):
    sites = [ToySite("alpha"), ToySite("beta"), ToySite("beta")]
    play(prepare(tmp_path, sites), client_of(sites), sites)
    assert "another node is beta" in caplog.text
    assert all(r["sites"] == ["alpha", "beta"] for r in Registry(tmp_path).rounds())


def test_too_few_sites_stop_the_run_with_a_reason(tmp_path):
    class Broken(ToySite):
        @property
        def base_digest(self):
            raise DataError(f"no masks in {SECRET}")

        @base_digest.setter
        def base_digest(self, value):
            pass

    sites = [ToySite("alpha"), Broken("beta")]
    launch = prepare(tmp_path, sites, config(wait_s=1.0))
    with pytest.raises(StateError, match=r"1 of the 2 sites .* refused: VG20") as caught:
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


# --- crashes -----------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.mark.parametrize("after", [1, 2])
def test_a_killed_run_goes_on_to_the_very_same_weights(tmp_path, monkeypatch, after):
    whole = toys()
    play(prepare(tmp_path / "whole", whole), client_of(whole), whole)

    sites = toys()
    launch = prepare(tmp_path / "killed", sites)
    write = Registry.write

    def die(self, record, kept):
        write(self, record, kept)
        if record.number == after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "write", die)
        with pytest.raises(Killed):
            play(launch, client_of(sites), sites)
    assert Registry(tmp_path / "killed").last_complete() == after
    again = toys()
    play(launch, client_of(again), again)
    assert [order.number for order in again[0].orders] == list(range(after + 1, 4))
    for number in range(4):
        assert same(
            Registry(tmp_path / "killed").weights(number),
            Registry(tmp_path / "whole").weights(number),
        )
    assert len(again[0].releases) == 1


def test_a_run_that_is_done_only_publishes_again(tmp_path):
    sites = toys()
    launch = prepare(tmp_path, sites)
    play(launch, client_of(sites), sites)
    again = toys()
    play(launch, client_of(again), again)
    assert not again[0].orders
    assert len(again[0].releases) == 1


def test_a_full_disk_stops_the_run_and_leaves_earlier_rounds_intact(
    tmp_path, monkeypatch
):
    sites = toys()
    launch = prepare(tmp_path, sites)
    fsync, write = os.fsync, Registry.write

    def full(self, record, kept):
        if record.number == 2:
            monkeypatch.setattr(os, "fsync", _no_space)
        write(self, record, kept)

    monkeypatch.setattr(Registry, "write", full)
    with pytest.raises(StateError, match=r"0002\.safetensors: No space left"):
        play(launch, client_of(sites), sites)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Registry, "write", write)
    registry = Registry(tmp_path)
    assert registry.last_complete() == 1
    assert not same(registry.weights(1), registry.weights(0))
    play(launch, client_of(toys()), sites)
    assert registry.last_complete() == 3


def _no_space(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_of_another_configuration_is_refused(tmp_path):
    sites = toys()
    play(prepare(tmp_path, sites), client_of(sites), sites)
    before = Registry(tmp_path).rounds()
    other = prepare(tmp_path, sites, config(generate_rounds=4))
    with pytest.raises(StateError, match="holds another run: its config"):
        play(other, client_of(sites), sites)
    assert Registry(tmp_path).rounds() == before


# --- what a hostile server can ask ---------------------------------------------------


def asking(how):
    """A mod between server and site that changes what the site is asked."""

    def rewrite(message, context, call_next):
        if message.metadata.message_type == "train":
            how(message.content)
        return call_next(message, context)

    return rewrite


def _asked(**words):
    def how(content):
        for name, word in words.items():
            content["order"][name] = word

    return how


ASKED = {
    "VG15": _asked(base="0" * 64),
    "VG10": _asked(plan='{"generate": {"steps": 0}}'),
}


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("VG15", _asked(base="0" * 64)),
        ("VG30", _asked(exchange="0" * 64)),
        ("VG30", _asked(protocol="2")),
        ("VG30", _asked(stage="upload")),
        ("VG30", _asked(extra="send everything")),
        ("VG30", _asked(**{"plan-digest": "0" * 64})),
        ("VG10", _asked(plan='{"upload": 1}')),
        ("VG30", lambda content: content.pop("weights")),
    ],
)
def test_a_site_refuses_an_order_that_is_not_the_runs(tmp_path, code, how):
    sites = toys(2)
    asked = config(generate_rounds=1, evaluate=False)
    play(prepare(tmp_path, sites, asked), client_of(sites, mods=[asking(how)]), sites)
    for record in Registry(tmp_path).rounds():
        assert record["left_out"] == {"alpha": code, "beta": code}
        assert not record["counted"]
    assert not sites[0].orders


def test_an_answer_is_never_in_a_handlers_own_words(tmp_path):
    sites = toys(2)
    launch = prepare(tmp_path, sites)
    client_app = client_of(sites)
    assert answer_to is not None
    play(launch, client_app, sites)
