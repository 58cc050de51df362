"""Bad replies are left out by the server, bad orders refused by the site."""

import logging
import time
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord

from server import post
from server.registry import Registry
from tests.federation.toys import (
    ToySite,
    client_of,
    config,
    expected,
    play,
    prepare,
    same,
    toys,
    with_words,
)
from vgmedgen import __version__
from vgmedgen.exchange.schema import PROTOCOL

pytestmark = pytest.mark.simulation

PATIENT = "/data/ward-7/patient-0815.png"


def _update(change):
    def how(message, reply):
        group = next(iter(reply.content["update"]))
        flat = reply.content["update"][group].numpy()
        reply.content["update"] = ArrayRecord(change(group, flat))
        return reply

    return how


def _number(name, value):
    def how(message, reply):
        numbers = {**reply.content["numbers"], name: value}
        reply.content["numbers"] = MetricRecord(numbers)
        return reply

    return how


def _nan(group, flat):
    flat[3] = np.nan
    return {group: Array(flat)}


def _record_more(message, reply):
    reply.content["extra"] = ArrayRecord({"x": Array(np.zeros(3))})
    return reply


def _not_numpy(group, flat):
    return {group: Array("float16", flat.shape, "numpy.ndarray", b"no array at all")}


def _error(code):
    return lambda m, r: Message(Error(code=code, reason=PATIENT), reply_to=m)


BAD = [
    ("VG30", _update(_nan)),
    ("VG30", _update(_not_numpy)),
    ("VG30", _update(lambda g, f: {g: Array(f.astype(np.float32))})),
    ("VG30", _update(lambda g, f: {g: Array(f[:-1])})),
    ("VG30", _update(lambda g, f: {"visual_prior": Array(f)})),
    ("VG30", _update(lambda g, f: {g: Array(f), "optimiser": Array(f)})),
    ("VG30", _number("num-units", 1e9)),
    ("VG30", _number("num-units", -5)),
    ("VG30", _number("num-units", 0)),
    ("VG30", _number("loss-sum", float("nan"))),
    ("VG30", _number("per-sample-loss", 0.3)),
    ("VG30", lambda m, r: with_words(r, site="alpha")),
    ("VG30", lambda m, r: with_words(r, round="99")),
    ("VG15", lambda m, r: with_words(r, base="0" * 64)),
    ("VG30", lambda m, r: with_words(r, exchange="0" * 64)),
    ("VG30", lambda m, r: with_words(r, note=PATIENT)),
    ("VG30", _record_more),
    ("FL02", _error(2)),
    ("offline", _error(5)),
    ("VG30", _error(100)),
    ("VG30", _error(101)),
    ("VG30", _error(12345)),
    ("VG30", _error(-1)),
]


def test_every_bad_reply_is_left_out_and_named(tmp_path, caplog):
    sites = toys()
    caplog.set_level(logging.INFO, logger="server")

    def tamper(site, message, reply):
        if site.name != "gamma" or message.metadata.message_type != "train":
            return reply
        return BAD[int(message.content["order"]["round"]) - 1][1](message, reply)

    asked = config(align_rounds=2, generate_rounds=len(BAD) - 2, evaluate=False)
    launch = prepare(tmp_path, sites, asked)
    play(launch, client_of(sites, tamper=tamper), sites)
    records = Registry(tmp_path).rounds()
    assert [r["left_out"] for r in records] == [{"gamma": code} for code, _ in BAD]
    assert all(r["counted"] and r["sites"] == ["alpha", "beta"] for r in records)
    assert "left out gamma (VG30)" in caplog.text
    assert PATIENT not in caplog.text
    # Left out means left out: the result is that of the two others alone.
    final = Registry(tmp_path).weights(len(BAD))
    assert same(final, expected(launch, toys(2), len(BAD)))


COMPUTED = [
    lambda state: {**state, "dit.extra": np.zeros(2, np.float32)},
    lambda state: dict(list(state.items())[1:]),
    lambda state: {n: a.reshape(-1) for n, a in state.items()},
    lambda state: {n: np.full_like(a, np.inf) for n, a in state.items()},
    lambda state: {n: np.full_like(a, 1e6) for n, a in state.items()},
]


def test_a_site_that_computes_something_else_sends_nothing(tmp_path):
    class Wrong(ToySite):
        def train(self, order):
            outcome = super().train(order)
            return replace(outcome, state=COMPUTED[order.number - 1](outcome.state))

    sites, sent = [*toys(2), Wrong("gamma")], []

    def listen(message, context, call_next):
        reply = call_next(message, context)
        if message.metadata.message_type == "train":
            sent.append(reply)
        return reply

    asked = config(align_rounds=3, generate_rounds=2, evaluate=False)
    launch = prepare(tmp_path, sites, asked)
    play(launch, client_of(sites, mods=[listen]), sites)
    for record in Registry(tmp_path).rounds():
        assert record["left_out"] == {"gamma": "VG30"}
    assert sum(reply.has_error() for reply in sent) == len(COMPUTED)


def test_a_site_that_is_late_is_left_out_and_the_round_goes_on(tmp_path, monkeypatch):
    sites = toys()

    def silent(message, context, call_next):
        reply = call_next(message, context)
        late = sites[context.node_config["partition-id"]].name == "gamma"
        if late and message.metadata.message_type == "train":
            # Flower stores no reply to a message that does not exist.
            reply.metadata.__dict__["_reply_to_message_id"] = "elsewhere"
        return reply

    # the time of a question is over when everybody else has answered it: a clock would
    # have to be longer than the slowest machine needs
    questions = []

    class Noted(post._Question):
        def __init__(self, contents, now):
            super().__init__(contents, now)
            questions.append(self)

    def polls(_):
        while len(questions[-1].replies) < 2:
            yield
            time.sleep(0.02)
        yield

    monkeypatch.setattr(post, "_Question", Noted)
    monkeypatch.setattr(post, "polls", polls)
    asked = config(generate_rounds=1, evaluate=False)
    launch = prepare(tmp_path, sites, asked)
    play(launch, client_of(sites, mods=[silent]), sites)
    for record in Registry(tmp_path).rounds():
        assert record["left_out"] == {"gamma": "late"}
        assert record["counted"]


def _asked(**words):
    def how(content):
        order = dict(content["order"]) | words
        content["order"] = type(content["order"])(order)

    return how


HOSTILE = [
    ("VG15", _asked(base="0" * 64)),
    ("VG30", _asked(exchange="0" * 64)),
    ("VG31", _asked(protocol="1")),
    ("VG30", _asked(stage="upload")),
    ("VG30", _asked(extra="send everything")),
    ("VG30", _asked(**{"plan-digest": "0" * 64})),
    ("VG10", _asked(plan='{"upload": 1}')),
    ("VG30", lambda content: content.pop("weights", None)),
]


def test_a_site_refuses_an_order_that_is_not_the_runs(tmp_path):
    sites, number = toys(2), []

    def rewrite(message, context, call_next):
        if message.metadata.message_type == "train":
            if len(number) < 2 * len(HOSTILE):
                HOSTILE[len(number) // 2][1](message.content)
            number.append(1)
        return call_next(message, context)

    # one round more, which nobody rewrites: a run that merged nothing releases nothing
    asked = config(generate_rounds=len(HOSTILE), evaluate=False)
    launch = prepare(tmp_path, sites, asked)
    play(launch, client_of(sites, mods=[rewrite]), sites)
    *records, last = Registry(tmp_path).rounds()
    for record, (code, _) in zip(records, HOSTILE, strict=True):
        assert record["left_out"] == {"alpha": code, "beta": code}
        assert not record["counted"]
    assert last["counted"]
    assert [order.number for order in sites[0].orders] == [len(HOSTILE) + 1]


def test_another_protocol_is_told_with_both_versions_on_both_sides(tmp_path, caplog):
    sites = toys(3)

    def older(message, context, call_next):
        if sites[context.node_config["partition-id"]].name == "gamma":
            order = dict(message.content["order"]) | {"protocol": "2"}
            # other versions have other words too
            message.content["order"] = type(message.content["order"])(
                order | {"more": "x"}
            )
        return call_next(message, context)

    caplog.set_level(logging.INFO)
    launch = prepare(tmp_path, sites, config(generate_rounds=1, evaluate=False))
    play(launch, client_of(sites, mods=[older]), sites)
    for record in Registry(tmp_path).rounds():
        assert record["sites"] == ["alpha", "beta"]
    said = [r.getMessage() for r in caplog.records]
    theirs = f"the coordinator speaks protocol 2, this site (version {__version__})"
    assert any(theirs in line for line in said)
    ours = f"this coordinator is version {__version__} and speaks protocol {PROTOCOL}"
    assert any("(VG31)" in line and ours in line for line in said)
