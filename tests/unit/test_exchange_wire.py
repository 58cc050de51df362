"""Reading Flower's records: exactly what is listed, or a refusal."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from vgmedgen.errors import ExchangeError
from vgmedgen.exchange.payload import pack
from vgmedgen.exchange.schema import NUMBERS, WORDS, ExchangeSchema
from vgmedgen.exchange.wire import DOWN, UP, Kind, size

STATES = {
    "mapper": {"a.bias": np.ones(3, np.float32)},
    "lora": {"q.A": np.ones((2, 4), np.float32)},
}
SCHEMA = ExchangeSchema.of(STATES)
UPLINK = SCHEMA.up("align")
FORM = UP[Kind.TRAIN]
ORIGIN = {
    "site": "alpha",
    "run": "r1",
    "round": "1",
    "stage": "align",
    "base": "0" * 64,
    "exchange": SCHEMA.digest,
    "ledger": "2-" + "0" * 32,
}


def flat():
    return pack(STATES["mapper"], UPLINK["mapper"])


def reply(**change):
    records = {
        "origin": ConfigRecord({**ORIGIN}),
        "numbers": MetricRecord(
            {"num-units": 3, "loss-sum": 1.5, "epsilon-spent": 0.0}
        ),
        "update": ArrayRecord({"mapper": Array(flat())}),
        **change,
    }
    return RecordDict({name: r for name, r in records.items() if r is not None})


def test_a_good_reply_is_read():
    content = reply()
    assert FORM.read_words(content) == ORIGIN
    assert FORM.read_numbers(content, NUMBERS)["num-units"] == 3
    found = FORM.read_arrays(content, UPLINK)
    np.testing.assert_array_equal(found["mapper"]["a.bias"], 1)


def test_size_counts_tensors_numbers_and_words():
    words = sum(len(word) for word in ORIGIN.values())
    assert size(reply()) == len(Array(flat()).data) + 3 * 8 + words


@pytest.mark.parametrize(
    "change",
    [
        {"origin": None},
        {"update": None},
        {"numbers": None},
        {"more": ConfigRecord({})},
        {"more": MetricRecord({})},
        {"more": ArrayRecord()},
        {"origin": ConfigRecord({**ORIGIN, "note": "x"})},
        {"origin": ConfigRecord({n: w for n, w in ORIGIN.items() if n != "run"})},
        {"origin": ConfigRecord({**ORIGIN, "site": "Jane Doe"})},
        {"origin": ConfigRecord({**ORIGIN, "round": 1})},
        {"origin": ConfigRecord({**ORIGIN, "site": ["alpha"]})},
        {"origin": ConfigRecord({**ORIGIN, "site": b"alpha"})},
    ],
)
def test_records_and_words_are_exactly_those_listed(change):
    with pytest.raises(ExchangeError):
        FORM.read_words(reply(**change))


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"lora": Array(flat())},
        {"mapper": Array(flat()), "lora": Array(flat())},
        {"mapper": Array(flat().astype(np.float64))},
        {"mapper": Array(flat().reshape(1, 3))},
        {"mapper": Array("float16", (3,), "torch.pickle", b"")},
        {"mapper": Array("float16", (3,), "numpy.ndarray", b"\x93NUMPY nonsense")},
        {"mapper": Array("float16", (3,), "numpy.ndarray", bytes(5000))},
        {"mapper": Array("float16", (3,), "numpy.ndarray", Array(np.ones(2)).data)},
        {"mapper": Array(np.full(3, np.nan, np.float16))},
    ],
)
def test_arrays_are_exactly_those_listed(arrays):
    with pytest.raises(ExchangeError):
        FORM.read_arrays(reply(update=ArrayRecord(arrays)), UPLINK)


def test_an_array_that_would_need_a_pickle_is_not_loaded():
    content = Array(np.ones(3, np.float16)).data.replace(b"'<f2'", b"'|O' ")
    array = Array("float16", (3,), "numpy.ndarray", content)
    with pytest.raises(ExchangeError, match="not readable"):
        FORM.read_arrays(reply(update=ArrayRecord({"mapper": array})), UPLINK)


def test_every_message_has_a_form_in_both_directions_and_every_word_a_pattern():
    assert set(DOWN) == set(UP) == set(Kind)
    for form in [*DOWN.values(), *UP.values()]:
        assert form.words <= set(WORDS)
    # Weights come down; only an update goes up, and only as an answer to train.
    assert [kind for kind in Kind if UP[kind].arrays] == [Kind.TRAIN]
    assert not any(form.numbers for form in DOWN.values())
