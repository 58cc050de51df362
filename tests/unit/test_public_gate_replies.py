"""Replies that hostile nodes announce, send in pieces, or never send."""

import time
from types import SimpleNamespace

import pytest
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
)

from server.flower.grid import PatientGrid
from tests.exchanged import NODE, OTHER, RUN, named, order, reply_to


class Runtime:
    """A SuperLink's Runtime API: announces replies once, and holds their objects."""

    def __init__(self):
        self.replies, self.objects, self.asked = [], {}, []

    def announce(self, reply, told=None, there=True):
        told = told or reply
        metadata = message_to_proto(remove_content_from_message(told))
        metadata.metadata.message_id = reply.object_id
        self.replies.append((metadata, get_object_tree(reply)))
        for name, made in get_all_nested_objects(reply).items():
            self.objects[name] = made.deflate() if there else b""

    def PullMessages(self, request):  # noqa: N802 - Flower's name
        self.asked.append(set(request.message_ids))
        found, self.replies = self.replies, []
        return PullAppMessagesResponse(
            messages_list=[m for m, _ in found],
            message_object_trees=[t for _, t in found],
        )

    def PullObject(self, request):  # noqa: N802
        content = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=content is not None,
            object_available=bool(content),
            object_content=content or b"",
        )

    def ConfirmMessageReceived(self, request):  # noqa: N802
        pass

    def close(self):
        pass


@pytest.fixture
def runtime():
    return Runtime()


@pytest.fixture
def grid(runtime):
    made = PatientGrid("127.0.0.1:1", token="t")  # noqa: S106
    made._client = runtime
    made._run = SimpleNamespace(run_id=RUN)
    return made


@pytest.fixture(autouse=True)
def plain_run(monkeypatch):
    monkeypatch.setattr(PatientGrid, "run", SimpleNamespace(run_id=RUN))


def pull(grid, *orders):
    found = grid.pull_messages({o.metadata.message_id for o in orders})
    return {r.metadata.reply_to_message_id: r for r in found}


def test_an_honest_reply_is_handed_out_as_it_was_sent(grid, runtime):
    asked = order()
    runtime.announce(reply_to(asked))
    (reply,) = pull(grid, asked).values()
    assert reply.metadata.src_node_id == NODE
    assert not reply.has_error()
    assert "update" in reply.content


def test_a_reply_that_is_announced_and_never_sent_holds_nobody_up(
    grid, runtime, monkeypatch
):
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    lazy, busy = order(OTHER), order()
    runtime.announce(reply_to(lazy), there=False)
    runtime.announce(reply_to(busy))
    assert set(pull(grid, lazy, busy)) == {busy.metadata.message_id}
    assert pull(grid, lazy) == {}
    runtime.objects = {}  # as when Flower gives the upload up
    (error,) = pull(grid, lazy).values()
    assert error.error.code == 4


def test_a_reply_that_arrives_bit_by_bit_is_handed_out_when_it_is_whole(grid, runtime):
    asked = order()
    reply = reply_to(asked)
    runtime.announce(reply, there=False)
    for name, made in get_all_nested_objects(reply).items():
        assert pull(grid, asked) == {}
        runtime.objects[name] = made.deflate()
    assert "update" in pull(grid, asked)[asked.metadata.message_id].content
    assert len(runtime.asked) == 1  # it is announced once, and remembered


@pytest.mark.parametrize("field", ["_src_node_id", "_reply_to_message_id"])
def test_a_reply_that_says_it_is_another_is_dropped(grid, runtime, field):
    mine, others = order(), order(OTHER)
    told, forged = reply_to(mine), reply_to(mine)
    wrong = {"_src_node_id": OTHER, "_reply_to_message_id": others.metadata.message_id}
    forged.metadata.__dict__[field] = wrong[field]
    runtime.announce(named(forged), told=told)
    found = pull(grid, mine, others)
    assert set(found) == {mine.metadata.message_id}
    error = found[mine.metadata.message_id].error
    assert (error.code, error.reason) == (100, "VG30")


def test_a_reply_that_cannot_be_read_spoils_no_other(grid, runtime):
    bad, good = order(OTHER), order()
    broken = reply_to(bad)
    runtime.announce(broken)
    runtime.objects[broken.object_id] = b"\xff" * 40
    runtime.announce(reply_to(good))
    found = pull(grid, bad, good)
    assert found[bad.metadata.message_id].error.reason == "VG30"
    assert not found[good.metadata.message_id].has_error()


def test_an_object_that_is_no_message_is_no_reply(grid, runtime):
    asked = order()
    reply = reply_to(asked)
    runtime.announce(reply)
    (announced, _) = runtime.replies.pop()
    announced.metadata.message_id = reply.content.object_id
    runtime.replies = [(announced, get_object_tree(reply.content))]
    (error,) = pull(grid, asked).values()
    assert error.error.reason == "VG30"


def test_an_answer_that_is_too_late_is_forgotten(grid, runtime):
    asked = order()
    runtime.announce(reply_to(asked), there=False)
    grid._ends[asked.metadata.message_id] = time.time() - 1
    pull(grid, asked)
    grid._ends[asked.metadata.message_id] = time.time() - 1
    pull(grid)
    assert not grid._coming
    assert not grid._ends
