"""A message of a few bytes that names one chunk of it again and again."""

import numpy as np
import pytest
from flwr.app import Array
from flwr.app.message.array import Array as Inner
from flwr.supercore.inflatable.inflatable_object import get_object_body

from vgmedgen.errors import ExchangeError
from vgmedgen.exchange import unfolding


@pytest.fixture
def limited(monkeypatch):
    monkeypatch.setattr(Array, "inflate", Array.__dict__["inflate"])
    unfolding.limit(Array)
    return Array


def parts(values):
    array = Array(values)
    content = array.deflate()
    children = {one.object_id: one for one in array.children.values()}
    return content, children


def test_an_honest_array_is_put_together_as_before(limited):
    values = np.arange(300_000, dtype=np.float16)
    again = limited.inflate(*parts(values))
    assert again.numpy().tobytes() == values.tobytes()


def test_an_array_that_would_unfold_without_end_is_refused(limited):
    content, children = parts(np.zeros(200_000, np.float16))
    assert get_object_body(content, Inner).startswith(b"{")
    head, _, body = content.partition(b"\x00")
    ids = "[" + ", ".join(["0"] * 10_000) + "]"
    many = body.replace(b"[0]", ids.encode())
    assert many != body
    with pytest.raises(ExchangeError, match="unfold"):
        limited.inflate(head + b"\x00" + many, children)


def test_the_limit_is_set_once(limited):
    before = limited.__dict__["inflate"]
    unfolding.limit(limited)
    assert limited.__dict__["inflate"] is before
