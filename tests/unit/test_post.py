"""Who is asked, who is asked again, and when nobody is waited for any longer."""

import time
from types import SimpleNamespace

import pytest
from flwr.app import RecordDict

from server import post
from server.post import Node, Post
from vgmedgen.exchange.wire import Kind

GONE, CRASHED, OURS = 5, 8, 100


def said(code=None):
    """A reply, or an error of Flower's."""
    error = SimpleNamespace(code=code)
    return SimpleNamespace(has_error=lambda: code is not None, error=error)


def at(node, since=0.0):
    return Node(id=node, key="", since=since)


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


@pytest.mark.parametrize("code", [GONE, CRASHED])
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


def test_a_node_that_is_lost_every_time_is_not_asked_for_ever(asked):
    asked.hear({1: said()})
    for _ in range(post._MOST_SENDS - 1):
        asked.hear({2: said(CRASHED)})
        assert asked.to_ask_again([at(1), at(2)], 60) == [2]
    asked.hear({2: said(CRASHED)})
    assert asked.to_ask_again([at(1), at(2)], 60) == []
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
        metadata = SimpleNamespace(reply_to_message_id="m1")
        return [SimpleNamespace(has_error=lambda: False, metadata=metadata)]


@pytest.fixture
def _server(monkeypatch):
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.mark.usefixtures("_server")
def test_the_second_message_to_a_restarted_node_is_answered():
    line = Line()
    replies = Post(line).ask(
        Kind.TRAIN, {7: RecordDict()}, timeout_s=5, return_s=5, group="1"
    )
    assert list(replies) == [7]
    assert len(line.sent) == 2
    assert Post(line).nodes()[0].key == b"k".hex()


@pytest.mark.usefixtures("_server")
def test_a_silent_node_is_waited_for_no_longer_than_the_question_lasts():
    line = Line()
    line.pull_messages = lambda ids: []
    started = time.monotonic()
    assert not Post(line).ask(
        Kind.TRAIN, {7: RecordDict()}, timeout_s=0.4, return_s=9, group="1"
    )
    assert time.monotonic() - started < 2
