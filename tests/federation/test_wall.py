"""What crosses a site's wall, seen by a mod that listens outside the egress guard."""

import logging

import numpy as np
import pytest
from flwr.app import Error

from server.registry import Registry
from tests.federation.toys import ToySite, Wire, client_of, config, play, prepare, toys
from vgmedgen.errors import TrainingError
from vgmedgen.exchange.schema import NUMBERS, WORDS

pytestmark = pytest.mark.simulation

PATIENT = "/data/ward-7/miller-0815.png"


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
    assert len(wire.down) == len(wire.up) == 3 * (1 + 3 + 2 + 1)
    for kind, message in wire.down:
        only_schema(message.content, launch.schema)
        weights = set() if kind == "query.hello" else {"weights"}
        assert set(message.content) == {"order"} | weights
    for kind, reply in wire.up:
        only_schema(reply.content, launch.schema)
        assert (
            set(reply.content)
            == {
                "query.hello": {"origin"},
                "train": {"origin", "numbers", "update"},
                "evaluate": {"origin", "numbers"},
                "query.install": {"origin"},
            }[kind]
        )
    train = [reply for kind, reply in wire.up if kind == "train"]
    assert [set(reply.content["update"]) for reply in train] == (
        [{"mapper"}] * 3 + [{"lora"}] * 6
    )


def test_what_a_site_says_in_an_exception_never_reaches_the_server(tmp_path, caplog):
    class Careless(ToySite):
        def train(self, order):
            if order.stage == "align":
                raise SystemExit(PATIENT)
            raise ValueError(f"cannot read {PATIENT}")

        def evaluate(self, order):
            raise type("MillerError", (Exception,), {})(PATIENT)

        def install(self, order, manifest, signature=None):
            return PATIENT

    sites, wire = [*toys(2), Careless("gamma")], Wire()
    caplog.set_level(logging.INFO)
    launch = prepare(tmp_path, sites)
    play(launch, client_of(sites, mods=[wire]), sites)
    assert PATIENT.encode() not in wire.raw
    assert b"iller" not in wire.raw
    errors = [reply.error for _, reply in wire.up if reply.has_error()]
    assert errors == [Error(code=100, reason="VG00")] * 5 + [
        Error(code=100, reason="VG30")
    ]
    for path in tmp_path.rglob("*.json"):
        assert "iller" not in path.read_text()
    said = [r.getMessage() for r in caplog.records if r.name.startswith("server")]
    assert not any("iller" in line for line in said)
    assert any("left out gamma (VG00)" in line for line in said)
    assert "gamma did not install the release (VG30)" in said
    # At the site itself the whole story is in the log.
    assert PATIENT in caplog.text


def test_an_error_class_of_its_own_cannot_smuggle_words_out_as_a_code(tmp_path):
    class LeakyError(TrainingError):
        code = PATIENT

    class Careless(ToySite):
        def train(self, order):
            raise LeakyError("stopped")

    sites, wire = [*toys(2), Careless("gamma")], Wire()
    launch = prepare(tmp_path, sites, config(generate_rounds=1, evaluate=False))
    play(launch, client_of(sites, mods=[wire]), sites)
    assert b"iller" not in wire.raw
    assert Registry(tmp_path).rounds()[0]["left_out"] == {"gamma": "VG00"}
