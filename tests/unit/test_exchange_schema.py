"""The list of what may cross: how it is made, told and refused."""

import json
import re

import numpy as np
import pytest

from vgmedgen.errors import ExchangeError
from vgmedgen.exchange.schema import (
    NUMBERS,
    WORDS,
    ExchangeSchema,
    TensorSpec,
)


def states(rank=2):
    return {
        "mapper": {"b.weight": np.zeros((3, 2)), "a.bias": np.zeros(3)},
        "lora": {"dit.q.B": np.zeros((5, rank)), "dit.q.A": np.zeros((rank, 4))},
    }


def test_a_schema_is_sorted_by_name_whatever_the_model_says():
    schema = ExchangeSchema.of(states())
    assert [spec.name for spec in schema.groups["mapper"]] == ["a.bias", "b.weight"]
    assert schema.size("mapper") == 9
    assert schema.size("lora") == 18


def test_equal_models_have_equal_digests_and_another_rank_another():
    assert ExchangeSchema.of(states()).digest == ExchangeSchema.of(states()).digest
    assert ExchangeSchema.of(states()).digest != ExchangeSchema.of(states(3)).digest


def test_a_schema_is_read_back_equal():
    schema = ExchangeSchema.of(states())
    again = ExchangeSchema.from_json(schema.to_json())
    assert again == schema
    assert again.digest == schema.digest


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"mapper": 1}', '{"mapper": [["a"]], "lora": []}'],
)
def test_what_is_no_schema_is_refused(text):
    with pytest.raises(ExchangeError):
        ExchangeSchema.from_json(text)


@pytest.mark.parametrize(
    "name", ["", "a b", "../a", "a..b", ".a", "a\n", "ä", "x" * 201, "patient/7"]
)
def test_a_name_that_is_not_canonical_is_refused(name):
    with pytest.raises(ExchangeError, match="canonical"):
        TensorSpec(name=name, shape=(1,))


@pytest.mark.parametrize("shape", [(0,), (-1, 2), (1.5,), (1,) * 9, ("2",)])
def test_a_shape_that_no_tensor_has_is_refused(shape):
    with pytest.raises(ExchangeError, match="shape"):
        TensorSpec(name="a", shape=shape)


@pytest.mark.parametrize("groups", [["mapper"], ["mapper", "lora", "visual_prior"], []])
def test_only_two_kinds_of_tensor_exist(groups):
    specs = (TensorSpec(name="a", shape=(1,)),)
    with pytest.raises(ExchangeError, match="groups"):
        ExchangeSchema(dict.fromkeys(groups, specs))


def test_a_group_is_neither_empty_nor_unsorted_nor_doubled():
    one, two = TensorSpec(name="a", shape=(1,)), TensorSpec(name="b", shape=(1,))
    for specs in ((), (two, one), (one, one)):
        with pytest.raises(ExchangeError, match="each once"):
            ExchangeSchema({"mapper": specs, "lora": (one,)})


def test_each_stage_sends_its_own_group_and_gets_both():
    schema = ExchangeSchema.of(states())
    assert schema.up("align") == {"mapper": schema.groups["mapper"]}
    assert schema.up("align", "B") == schema.up("align")
    assert schema.up("generate") == {"lora": schema.groups["lora"]}
    (only,) = schema.up("generate", "B")["lora"]
    assert only.name == "dit.q.B"
    assert set(schema.down()) == {"mapper", "lora"}


@pytest.mark.parametrize(
    ("word", "good", "bad"),
    [
        ("run", "ham10000-1a2b", ["", "a/b", "../x", "x" * 65, "Jane Doe"]),
        ("round", "12", ["", "-1", "1.5", "123456"]),
        ("stage", "align", ["aligned", "train", ""]),
        ("site", "ham-vienna-2", ["", "Vienna", "x" * 41, "a b", "a/b"]),
        ("base", "0" * 64, ["0" * 63, "g" * 64, "0" * 65]),
        ("plan", '{"seed": 0}', ["", "[]", "{" + "x" * 9000 + "}", "{\x00}"]),
    ],
)
def test_a_word_has_a_form(word, good, bad):
    assert re.fullmatch(WORDS[word], good)
    for wrong in bad:
        assert not re.fullmatch(WORDS[word], wrong)


def test_a_schema_names_no_number_of_a_single_sample():
    assert NUMBERS == ("num-units", "loss-sum", "epsilon-spent")
    assert "numbers" not in json.loads(ExchangeSchema.of(states()).to_json())
