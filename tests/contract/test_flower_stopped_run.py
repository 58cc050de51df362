"""A run that is stopped while its message arrives at a site."""

from types import SimpleNamespace

import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.constant import Status, SubStatus
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.object_store.object_store_factory import ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import start_client_internal as supernode
from flwr.supernode.nodestate import NodeStateFactory

from client.flower.supernode import tidily


@pytest.fixture
def node():
    stores = ObjectStoreFactory()
    state = NodeStateFactory(stores).state()
    state.set_node_id(7)
    return SimpleNamespace(state=state, store=stores.store())


def stopped(*_):
    raise RunNotRunningException


def receive(step, node, **steps):
    """Receive one message of run 1 by `step`, Flower's or ours."""
    records = RecordDict({"w": ArrayRecord({"a": Array("float16", (1,), "x", b"12")})})
    message = Message(records, 7, "train", ttl=60.0, group_id="1")
    for name, value in (("_run_id", 1), ("_message_id", message.object_id)):
        message.metadata.__dict__[name] = value
    tree = get_object_tree(message)
    run = Run.create_empty(1)
    fab = Fab("", b"", {})
    found = {
        "receive": lambda: (message, tree),
        "get_run": lambda _: run,
        "get_fab": lambda *_: fab,
        "pull_object": lambda *_: b"x",
        "confirm_message_received": lambda *_: None,
    }
    return step(
        state=node.state,
        object_store=node.store,
        node_config={},
        trusted_entities=None,
        **{**found, **steps},
    ), tree.object_id


@pytest.fixture(autouse=True)
def _server(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(supernode, "get_fused_config_from_fab", lambda *_: {})


@pytest.mark.parametrize("when", ["pull_object", "confirm_message_received"])
def test_nothing_is_left_of_a_message_whose_run_ends_while_it_arrives(node, when):
    step = tidily(supernode._pull_and_store_message)
    pulled, message = receive(step, node, **{when: stopped})
    assert pulled is None
    (task,) = node.state.get_tasks()
    assert (task.status.status, task.status.sub_status) == (
        Status.FINISHED,
        SubStatus.FAILED,
    )
    # a runner that took it meanwhile is told at once that there is no such thing
    assert node.store.get(message) is None
    assert not node.state.get_messages_legacy()


def test_flower_by_itself_leaves_a_task_that_would_wait_for_ever(node):
    pulled, message = receive(
        supernode._pull_and_store_message, node, pull_object=stopped
    )
    assert pulled is None
    (task,) = node.state.get_tasks()
    assert task.status.status == Status.PENDING
    assert node.store.get(message) == b""  # announced, and never to come
