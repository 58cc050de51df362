"""Who is asked, who is asked again, and when nobody is waited for any longer."""

import time
from types import SimpleNamespace

import httpx
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf.message import DecodeError

from server import post
from server.post import Node, Post
from server.replies import code_of, unreadable
from vgmedgen.errors import ExchangeError, UnreachableError
from vgmedgen.exchange.wire import Kind

NO_QUESTION, NO_ANSWER, GONE, CRASHED, OURS = 3, 4, 5, 8, 100


def said(code=None, src=SUPERLINK_NODE_ID):
    """A reply, or an error of Flower's."""
    error, metadata = SimpleNamespace(code=code), SimpleNamespace(src_node_id=src)
    return SimpleNamespace(
        has_error=lambda: code is not None, error=error, metadata=metadata
    )


def answer(asked, content=None):
    """A reply of a site's, as Flower builds it."""
    reply = unreadable(asked)
    reply.__dict__.update(_content=content or RecordDict(), _error=None)
    return reply


def at(node, since=0.0):
    return Node(id=node, key="", since=since)


def test_the_number_of_the_superlink_is_flowers():
    assert post._SUPERLINK == SUPERLINK_NODE_ID


@pytest.fixture
def asked():
    return post._Question({1: RecordDict(), 2: RecordDict()}, now=100.0)


def test_a_question_is_open_until_everybody_answered(asked):
    asked.hear({1: said()})
    assert asked.open
    asked.hear({2: said(OURS)})
    assert not asked.open
    assert asked.replies[2].error.code == OURS


def test_a_node_that_was_restarted_under_the_question_is_asked_again(asked):
    assert asked.to_ask_again([at(1, 90.0), at(2, 99.0)], 60) == []
    again = time.time() - 1
    assert asked.to_ask_again([at(1, 90.0), at(2, again)], 60) == [2]
    assert asked.to_ask_again([at(1, 90.0), at(2, again)], 60) == []


@pytest.mark.parametrize("code", [NO_QUESTION, NO_ANSWER, GONE, CRASHED])
def test_a_lost_node_is_asked_again_when_it_is_back(asked, code):
    asked.hear({1: said(), 2: said(code)})
    assert asked.open
    assert asked.to_ask_again([at(1)], 60) == []
    assert asked.to_ask_again([at(1), at(2)], 60) == [2]
    asked.hear({2: said()})
    assert not asked.open
    assert not asked.replies[2].has_error()


def test_a_lost_node_that_does_not_come_back_is_given_up(asked):
    asked.hear({1: said(), 2: said(GONE)})
    assert asked.to_ask_again([at(1)], return_s=0.0) == []
    assert not asked.open
    assert asked.replies[2].error.code == GONE


@pytest.mark.parametrize(
    ("code", "most"),
    [(CRASHED, post._MOST_CRASHES), (NO_ANSWER, post._MOST_SENDS)],
)
def test_a_node_that_is_lost_every_time_is_not_asked_for_ever(asked, code, most):
    asked.hear({1: said()})
    for _ in range(most - 1):
        asked.hear({2: said(code)})
        assert asked.to_ask_again([at(1), at(2)], 60) == [2]
    asked.hear({2: said(code)})
    assert asked.to_ask_again([at(1), at(2)], 60) == []
    assert not asked.open


@pytest.mark.parametrize("code", [NO_QUESTION, NO_ANSWER, GONE])
def test_a_site_that_says_of_itself_that_it_is_lost_is_not_asked_again(asked, code):
    asked.hear({1: said(), 2: said(code, src=2)})
    assert not asked.open
    assert asked.replies[2].error.code == code


@pytest.mark.parametrize("code", [NO_QUESTION, NO_ANSWER, GONE, CRASHED])
def test_what_became_of_an_earlier_send_does_not_end_a_later_one(asked, code):
    asked.hear({1: said()})
    again = time.time() - 1
    assert asked.to_ask_again([at(1), at(2, again)], 60) == [2]
    asked.hear({2: said(code)}, waiting=[2])  # of the first send, cut off in the middle
    assert asked.open
    asked.hear({2: said()}, waiting=[])
    assert not asked.replies[2].has_error()


def test_a_node_that_was_shut_out_is_not_waited_for(asked):
    asked.hear({1: said()})
    asked.let_go([2, 3])
    assert not asked.open
    asked.hear({2: said()})  # what comes of it all the same does no harm
    assert not asked.open


class Line:
    """A grid with one node, that loses the first message and is restarted."""

    def __init__(self):
        self.sent, self.since = [], time.time() - 50

    def get_nodes(self):
        stamp = post.datetime.fromtimestamp(self.since).astimezone().isoformat()
        return [SimpleNamespace(node_id=7, public_key=b"k", last_activated_at=stamp)]

    def push_messages(self, messages):
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self.sent)}"
            self.sent.append(message)
        if len(self.sent) == 1:
            self.since = time.time() + 1
        return [m.metadata.message_id for m in messages]

    def pull_messages(self, ids):
        if len(self.sent) < 2 or "m1" not in ids:
            return []
        return [answer("m1")]


@pytest.fixture
def _server(monkeypatch):
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.mark.usefixtures("_server")
def test_the_second_message_to_a_restarted_node_is_answered():
    line = Line()
    replies = Post(line).ask(
        Kind.TRAIN, {7: RecordDict()}, timeout_s=600, return_s=600, group="1"
    )
    assert list(replies) == [7]
    assert len(line.sent) == 2
    assert Post(line).nodes()[0].key == b"k".hex()


@pytest.mark.usefixtures("_server")
def test_a_silent_node_is_waited_for_no_longer_than_the_question_lasts(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(post.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(post.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    line = Line()
    line.pull_messages = lambda ids: []
    assert not Post(line).ask(
        Kind.TRAIN, {7: RecordDict()}, timeout_s=3600, return_s=9, group="1"
    )
    assert now[0] == pytest.approx(1000 + 3600)


def test_an_answer_stands_whatever_comes_of_an_earlier_send(asked):
    asked.hear({2: said()})
    asked.hear({2: said(GONE)})
    assert asked.to_ask_again([at(1)], return_s=0.0) == []
    assert not asked.replies[2].has_error()
    assert asked.open


class Box:
    """A grid whose replies are made, or fail to be, when they are pulled."""

    def __init__(self, **waiting):
        self.waiting, self.asked = waiting, []

    def pull_messages(self, ids):
        self.asked.append(list(ids))
        found = [self.waiting[name] for name in ids if name in self.waiting]
        return [entry(name) for entry, name in zip(found, ids, strict=False)]


def failing(error):
    def make(asked):
        raise error

    return make


def built(body, *, kind="Message", children=()):
    """An object as a hostile site writes it, put together by Flower's own code."""

    def make(asked):
        held = {child.object_id: child.deflate() for child in children}
        head = f"{kind} {','.join(held)} {len(body)}".encode()
        return inflate_object_from_contents(
            "0" * 64, {**held, "0" * 64: head + b"\x00" + body}
        )

    return make


def holding(content):
    return lambda asked: answer(asked, content)


MALFORMED = {
    "records for a message": lambda asked: RecordDict(),
    "an array for a message": lambda asked: Array("float16", (1,), "x", b"1"),
    "an array for records": holding(Array("float16", (1,), "x", b"1")),
    "a message in a message": holding(answer("m1")),
    "words for records": holding(ConfigRecord({"site": "a"})),
    "a name that is no text": holding(
        RecordDict({"\ud800": ArrayRecord({"x": Array("f", (1,), "x", b"1")})})
    ),
    "another's answer": lambda asked: answer("honest"),
    "no message at all": lambda asked: None,
    "bytes that are no message": built(b"\xff\xff\xff"),
    "a message of nothing": built(b""),
    "a kind that is none": built(b"", kind="Patient"),
    "records that are no JSON": built(b"{", kind="RecordDict"),
    "records that are a list": built(b"[]", kind="RecordDict"),
    "an array without a shape": built(b"{}", kind="Array"),
    "objects without end": failing(RecursionError()),
    "a protobuf that is none": failing(DecodeError()),
    "more than there is memory": failing(MemoryError()),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_reply_is_its_sites_alone(name, caplog):
    box = Box(first=answer, hostile=MALFORMED[name], honest=answer)
    pending = {"first": 1, "hostile": 2, "honest": 3, "silent": 4}
    replies = Post(box).collect(pending)
    assert {node: reply.has_error() for node, reply in replies.items()} == {
        1: False,
        2: True,
        3: False,
    }
    assert isinstance(replies[2], Message)
    assert not replies[2].has_content()
    assert code_of(replies[2].error) == ExchangeError.code
    assert pending == {"silent": 4}
    assert box.asked == [["first"], ["hostile"], ["honest"], ["silent"]]
    assert "node 2 cannot be read" in caplog.text
    assert "\n" not in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    "error", [httpx.ReadTimeout("late"), UnreachableError("gone"), OSError("no disk")]
)
def test_what_goes_wrong_on_the_way_is_no_sites_fault(error):
    pending = {"one": 1}
    with pytest.raises(type(error)):
        Post(Box(one=failing(error))).collect(pending)
    assert pending == {"one": 1}


def test_an_error_to_an_earlier_send_does_not_hide_an_answer():
    def lost(asked):
        reply = answer(asked)
        reply.__dict__.update(_content=None, _error=SimpleNamespace(code=GONE))
        return reply

    for order in (("lost", "answered"), ("answered", "lost")):
        pending = dict.fromkeys(order, 7)
        (reply,) = Post(Box(lost=lost, answered=answer)).collect(pending).values()
        assert not reply.has_error()
        assert not pending
