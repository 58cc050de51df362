"""Packing a group into one flat array and refusing what does not fit."""

import numpy as np
import pytest

from vgmedgen.errors import ExchangeError
from vgmedgen.exchange import payload
from vgmedgen.exchange.schema import NUMBERS, TensorSpec

SPECS = (
    TensorSpec(name="a.bias", shape=(3,)),
    TensorSpec(name="a.weight", shape=(2, 3)),
)


def state():
    rng = np.random.default_rng(0)
    return {spec.name: rng.normal(size=spec.shape).astype(np.float32) for spec in SPECS}


def test_what_is_packed_is_unpacked_up_to_half_precision():
    flat = payload.pack(state(), SPECS)
    assert flat.dtype == np.float16
    assert flat.shape == (9,)
    again = payload.unpack(flat, SPECS)
    for name, array in state().items():
        assert again[name].dtype == np.float32
        assert again[name].shape == array.shape
        np.testing.assert_allclose(again[name], array, rtol=1e-3)


def test_what_arrives_can_be_sent_on_without_another_loss():
    once = payload.on_wire(state(), SPECS)
    twice = payload.on_wire(once, SPECS)
    assert all(once[name].tobytes() == twice[name].tobytes() for name in once)


def test_the_order_of_a_state_does_not_matter():
    backwards = dict(reversed(state().items()))
    one, other = payload.pack(state(), SPECS), payload.pack(backwards, SPECS)
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"b": np.zeros(1)}, "b is not in the schema"),
        ({"a.bias": np.zeros(4)}, r"a.bias has shape \(4,\)"),
        ({"a.bias": np.array([1, np.nan, 0])}, "a.bias holds values that are not fin"),
        ({"a.bias": np.array([1, -np.inf, 0])}, "limit 65504"),
        ({"a.bias": np.array([1, 7e4, 0])}, "limit 65504"),
        ({"a.bias": np.array([1, 1.1e4, 0])}, "a.bias holds .* the limit is 10000"),
        ({"a.bias": np.array([1, -1.1e4, 0])}, "a.bias holds .* the limit is 10000"),
    ],
)
def test_a_state_that_is_not_the_schemas_is_not_packed(change, said):
    with pytest.raises(ExchangeError, match=said):
        payload.pack(state() | change, SPECS)


def test_a_missing_tensor_is_named():
    with pytest.raises(ExchangeError, match=r"a\.weight is missing"):
        payload.pack({"a.bias": np.zeros(3)}, SPECS)


@pytest.mark.parametrize(
    "flat",
    [
        np.zeros(9, np.float32),
        np.zeros(8, np.float16),
        np.zeros((9, 1), np.float16),
        np.full(9, np.nan, np.float16),
        np.full(9, np.inf, np.float16),
        np.full(9, 1.1e4, np.float16),
        np.full(9, -1.1e4, np.float16),
        np.zeros(9, ">f2"),
    ],
)
def test_an_array_that_is_not_the_schemas_is_not_unpacked(flat):
    with pytest.raises(ExchangeError):
        payload.unpack(flat, SPECS)


def test_weights_up_to_the_limit_pass_either_way():
    large = {name: np.full_like(array, 1e4) for name, array in state().items()}
    again = payload.unpack(payload.pack(large, SPECS), SPECS)
    assert all((array == payload.LARGEST).all() for array in again.values())


def numbers(**change):
    return {"num-units": 3, "loss-sum": 1.5, "epsilon-spent": 0.0, **change}


def test_the_schemas_numbers_pass():
    assert payload.check_numbers(numbers()) == numbers()
    assert tuple(payload.check_numbers(numbers())) == NUMBERS


@pytest.mark.parametrize(
    "change",
    [
        {"per-sample-loss": 1.0},
        {"num-units": 1e9},
        {"num-units": 2.5},
        {"num-units": True},
        {"num-units": [1, 2]},
        {"num-units": "7"},
        {"loss-sum": -1.0},
        {"loss-sum": float("inf")},
        {"epsilon-spent": float("nan")},
    ],
)
def test_other_numbers_do_not(change):
    with pytest.raises(ExchangeError):
        payload.check_numbers(numbers(**change))


@pytest.mark.parametrize("missing", NUMBERS)
def test_every_number_has_to_be_there(missing):
    some = numbers()
    del some[missing]
    with pytest.raises(ExchangeError, match="expected the numbers"):
        payload.check_numbers(some)
