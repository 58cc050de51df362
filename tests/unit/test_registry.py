"""The server's memory of a run on disk."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from server import weights
from server.launch import Launch
from server.registry import Registry, RoundRecord
from vgmedgen.base import Bundle
from vgmedgen.config.run import RunConfig
from vgmedgen.errors import StateError
from vgmedgen.exchange.schema import ExchangeSchema

FACTS = {"run": "r1", "config": "c1", "base": "b1"}


def states(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "mapper": {"a.bias": rng.normal(size=3).astype(np.float32)},
        "lora": {"q.A": rng.normal(size=(2, 4)).astype(np.float32)},
    }


def record(number=1, **change):
    return RoundRecord(
        **{
            "number": number,
            "stage": "align",
            "counted": True,
            "sites": ["a", "b"],
            "left_out": {"c": "VG50"},
            "seconds": 1.5,
            **change,
        }
    )


def opened(folder):
    registry = Registry(folder)
    registry.open(FACTS, states())
    return registry


def equal(one, other):
    return weights.to_bytes(one) == weights.to_bytes(other)


def test_what_a_round_wrote_is_read_back_to_the_bit(tmp_path):
    registry = opened(tmp_path)
    assert registry.last_complete() == 0
    assert equal(registry.weights(0), states())
    registry.write(record(), states(1))
    again = Registry(tmp_path)
    assert again.run == "r1"
    assert again.last_complete() == 1
    assert equal(again.weights(1), states(1))
    (told,) = again.rounds()
    assert told["left_out"] == {"c": "VG50"}
    assert told["sites"] == ["a", "b"]


def test_equal_weights_are_equal_bytes():
    backwards = {g: dict(reversed(s.items())) for g, s in reversed(states().items())}
    assert weights.to_bytes(states()) == weights.to_bytes(backwards)


def test_a_later_start_keeps_the_weights_of_the_first(tmp_path):
    opened(tmp_path)
    Registry(tmp_path).open(FACTS, states(5))
    assert equal(Registry(tmp_path).weights(0), states())


@pytest.mark.parametrize("name", FACTS)
def test_another_run_in_the_folder_is_refused_by_name(tmp_path, name):
    opened(tmp_path)
    with pytest.raises(StateError, match=f"its {name} is"):
        Registry(tmp_path).open(FACTS | {name: "other"}, states())


def test_a_round_without_a_record_never_happened(tmp_path):
    registry = opened(tmp_path)
    registry.write(record(), states(1))
    registry.write(record(2), states(2))
    (tmp_path / "rounds" / "0002.json").unlink()
    assert registry.last_complete() == 1


def test_weights_without_a_record_are_written_anew_to_the_same_bytes(tmp_path):
    registry = opened(tmp_path)
    registry.write(record(), states(1))
    registry.write(record(2), states(2))
    path = tmp_path / "rounds" / "0002.safetensors"
    content = path.read_bytes()
    for left in (content, content[:-9], b""):  # as kill -9 between the two files leaves
        path.write_bytes(left)
        (tmp_path / "rounds" / "0002.json").unlink()
        again = Registry(tmp_path)
        again.open(FACTS, states())
        assert again.last_complete() == 1
        assert [told["number"] for told in again.rounds()] == [1]
        assert equal(again.weights(1), states(1))
        again.write(record(2), states(2))
        assert path.read_bytes() == content
        assert equal(again.weights(2), states(2))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"number": 1}', "of round 2"],
)
def test_a_damaged_record_is_one_line_that_names_its_file(tmp_path, content):
    registry = opened(tmp_path)
    registry.write(record(), states(1))
    registry.write(record(2), states(2))
    path = tmp_path / "rounds" / "0001.json"
    if content == "of round 2":
        content = path.with_name("0002.json").read_bytes()
    path.write_bytes(content)
    for look in (registry.rounds, lambda: registry.weights(1)):
        with pytest.raises(StateError, match=r"0001\.json is .*damaged") as error:
            look()
        assert "\n" not in str(error.value)
    assert equal(registry.weights(2), states(2))


def test_a_changed_byte_in_the_weights_is_found(tmp_path):
    registry = opened(tmp_path)
    registry.write(record(), states(1))
    path = tmp_path / "rounds" / "0001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"0001\.safetensors is not what round 1"):
        registry.weights(1)


def test_missing_and_damaged_files_are_named(tmp_path):
    registry = opened(tmp_path)
    with pytest.raises(StateError, match=r"0007\.safetensors is missing"):
        registry.weights(7)
    with pytest.raises(StateError, match=r"registry\.json is missing"):
        _ = Registry(tmp_path / "elsewhere").run
    (tmp_path / "rounds" / "0000.safetensors").write_bytes(b"nonsense")
    with pytest.raises(StateError, match=r"0000\.safetensors does not hold"):
        registry.weights(0)
    (tmp_path / "registry.json").write_text("{")
    with pytest.raises(StateError, match="damaged"):
        opened(tmp_path)


def test_a_full_disk_leaves_every_earlier_round_as_it_was(tmp_path, monkeypatch):
    registry = opened(tmp_path)
    registry.write(record(), states(1))
    before = {p.name: p.read_bytes() for p in (tmp_path / "rounds").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(StateError, match=r"0002.*No space left"):
                registry.write(record(2), states(2))
        after = {p.name: p.read_bytes() for p in (tmp_path / "rounds").iterdir()}
        assert after == before
    assert registry.last_complete() == 1


def prepared(folder):
    return Launch.prepare(
        run="r1",
        folder=folder,
        config=RunConfig(seed=7),
        bundle=Bundle(Path("base"), {"seed": 1}),
        weights=states(),
        sites=3,
    )


def test_a_launch_is_read_back_equal(tmp_path):
    launch = prepared(tmp_path)
    again = Launch.load(launch.path)
    assert again == launch
    assert again.config.digest == RunConfig(seed=7).digest
    assert again.schema.digest == ExchangeSchema.of(states()).digest
    assert equal(again.start(), states())


def test_a_launch_that_is_not_there_or_damaged_is_named(tmp_path):
    with pytest.raises(StateError, match=r"launch\.json is not a readable"):
        Launch.load(tmp_path / "launch.json")
    launch = prepared(tmp_path)
    launch.path.with_name("start.safetensors").unlink()
    with pytest.raises(StateError, match=r"start\.safetensors is missing"):
        launch.start()
    told = json.loads(launch.path.read_text())
    del told["base-digest"]
    launch.path.write_text(json.dumps(told))
    with pytest.raises(StateError, match="not a readable launch file"):
        Launch.load(launch.path)
