"""What a hostile node or a stranger sends to the coordinator, and what becomes of it."""

import asyncio
import base64
import logging
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_object_tree,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from server.flower import Skews, listener
from server.flower.listener import MOST_HEAD, Brisk, Seldom
from server.flower.pushes import MOST_OBJECTS, fair
from server.gates import MOST_SMALL
from server.kits import NODES
from server.process import Keys
from tests.exchanged import NODE, OTHER, order, reply_to
from vgmedgen.errors import StateError


def push(message, sender=NODE):
    return PushMessagesRequest(
        node=Node(node_id=sender),
        messages_list=[message_to_proto(remove_content_from_message(message))],
        message_object_trees=[get_object_tree(message)],
        clientapp_runtime_list=[0.1],
    )


def test_an_honest_push_of_100_mb_is_fair_and_small():
    asked = push(reply_to(order(), size=50_000_000))
    body = asked.SerializeToString()
    assert fair(body)
    assert len(body) < MOST_SMALL / 10


def spoilt(change):
    asked = push(reply_to(order()))
    assert fair(asked.SerializeToString())
    change(asked, asked.messages_list[0].metadata)
    return asked.SerializeToString()


@pytest.mark.parametrize(
    "change",
    [
        lambda q, m: setattr(m, "src_node_id", OTHER),
        lambda q, m: setattr(q.node, "node_id", OTHER),
        lambda q, m: setattr(m, "dst_node_id", OTHER),
        lambda q, m: setattr(m, "reply_to_message_id", ""),
        lambda q, m: setattr(m, "message_id", "f" * 64),
        lambda q, m: setattr(m, "ttl", float("nan")),
        lambda q, m: setattr(m, "created_at", float("inf")),
        lambda q, m: q.clientapp_runtime_list.append(float("nan")),
        lambda q, m: q.clientapp_runtime_list.append(-1.0),
        lambda q, m: q.messages_list.append(q.messages_list[0]),
        lambda q, m: q.message_object_trees.append(q.message_object_trees[0]),
        lambda q, m: q.messages_list.pop(),
        lambda q, m: q.message_object_trees.pop(),
        lambda q, m: q.message_object_trees[0].children.extend(
            ObjectTree(object_id=str(n)) for n in range(MOST_OBJECTS)
        ),
    ],
)
def test_a_push_that_is_not_one_reply_of_its_sender_is_not_fair(change):
    assert not fair(spoilt(change))


def test_what_is_no_push_at_all_is_not_fair():
    for body in (b"", b"\xff" * 50, b"\x0a\x05abc"):
        assert not fair(body)


# who signed


def headers_of(key, stamp=None, **instead):
    request = SimpleNamespace(headers={})
    NodeAuthHttpInterceptor(key, key.public_key()).intercept(
        SimpleNamespace(request=request), lambda _: None
    )
    told = dict(request.headers)
    if stamp is not None:
        told["flwr-timestamp"] = stamp
        signed = sign_message(key, stamp.encode())
        told["flwr-signature"] = base64.b64encode(signed).decode()
    told |= instead
    return {name.lower().encode(): value.encode() for name, value in told.items()}


@pytest.fixture
def key():
    return ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def skews(key, tmp_path):
    name = public_key_to_bytes(key.public_key()).hex()
    found = Skews(worth_s=30, registered=lambda: {name}, ahead=tmp_path / "ahead.json")
    found.name = name
    return found


def test_a_registered_node_gets_in_and_its_clock_is_looked_at(skews, key):
    assert skews(headers_of(key)) == 0
    assert not skews.found
    late = (datetime.now(UTC) - timedelta(seconds=100)).isoformat()
    assert skews(headers_of(key, late)) == 0
    assert skews.found[skews.name] == pytest.approx(-100, abs=5)
    assert skews(headers_of(key)) == 0
    assert not skews.found


def test_strangers_get_no_further_and_leave_nothing_behind(skews):
    for _ in range(5):
        stranger = ec.generate_private_key(ec.SECP384R1())
        assert skews(headers_of(stranger, "2020-01-01T00:00:00+00:00")) == 401
    assert not skews.found


def test_whoever_shows_a_hospitals_key_without_having_it_is_a_stranger(skews, key):
    other = headers_of(ec.generate_private_key(ec.SECP384R1()))
    mine = headers_of(key)
    assert skews(mine | {b"flwr-signature": other[b"flwr-signature"]}) == 401
    assert skews(mine | {b"flwr-timestamp": b"2020-01-01T00:00:00+00:00"}) == 401
    for name in mine:
        assert skews({n: v for n, v in mine.items() if n != name}) == 401
        for value in (b"", b"\xff\xfe", b"x" * 10_000, b"not base64!"):
            assert skews(mine | {name: value}) == 401
    assert not skews.found


def test_a_registry_that_fails_lets_nobody_in(key, tmp_path):
    def broken():
        raise StateError("damaged")

    ahead = tmp_path / "ahead.json"
    assert Skews(worth_s=30, registered=broken, ahead=ahead)(headers_of(key)) == 401


def test_keys_are_read_again_when_they_were_written_and_kept_when_damaged(tmp_path):
    read = []

    def nodes():
        read.append(1)
        text = (tmp_path / NODES).read_text()
        if text == "broken":
            raise StateError("nodes.json is damaged")
        return {f"site {n}": key for n, key in enumerate(text.split())}

    keys = Keys(SimpleNamespace(home=tmp_path, nodes=nodes))
    assert keys() == frozenset()
    (tmp_path / NODES).write_text("aa bb")
    assert keys() == keys() == {"aa", "bb"}
    assert len(read) == 1
    (tmp_path / NODES).write_text("broken")
    assert keys() == {"aa", "bb"}
    (tmp_path / NODES).write_text("cc")
    assert keys.site_of("cc") == "site 0"
    assert keys.site_of("aa") == ""
    assert keys() == {"cc"}


# how long anybody is waited for


async def answers(scope, receive, send):
    await asyncio.sleep(0.5 if scope["path"] == "/slow" else 0)
    head = {"type": "http.response.start", "status": 200, "headers": []}
    await send(head | {"headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def port(monkeypatch):
    monkeypatch.setattr(listener, "REQUEST_S", 0.2)
    config = uvicorn.Config(
        answers,
        port=0,
        http=Brisk,
        ws="none",
        lifespan="off",
        log_level="error",
        h11_max_incomplete_event_size=MOST_HEAD,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def said(port, *parts, pause=0.0):
    """What comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=300) as line:
        found = b""
        try:
            for part in parts:
                line.sendall(part)
                time.sleep(pause)
            while part := line.recv(4096):
                found += part
        except (ConnectionResetError, BrokenPipeError):
            pass
        return found


def answered(port, *parts):
    """As `said`, once the machine was not too busy to ask within the server's patience."""
    for _ in range(100):
        found = said(port, *parts)
        if found:
            return found
    return b""


ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


ENDLESS = b"GET / HTTP/1.1\r\nx: " + b"a" * 4000


def dripped(port):
    """How many bytes, one now and then, are sent before the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.05) as line:
        for count, byte in enumerate(ENDLESS):
            try:
                line.sendall(bytes([byte]))
                if not line.recv(1):
                    return count
            except TimeoutError:
                continue
            except OSError:
                return count
    return len(ENDLESS)


def test_a_connection_on_which_nothing_is_asked_is_closed(port):
    assert said(port) == b""
    assert said(port, b"GET / HTTP/1.1\r\nHo") == b""
    assert dripped(port) < len(ENDLESS)
    # nor does a first request buy more time for a second
    assert answered(port, ASK, b"GET / HT").count(b"200 OK") == 1


def test_an_answer_that_takes_its_time_is_waited_for(port):
    slow = ASK.replace(b"/ ", b"/slow ", 1).replace(
        b"\r\n\r\n", b"\r\nConnection: close"
    )
    assert b"200 OK" in answered(port, slow + b"\r\n\r\n")


def test_a_head_without_end_is_refused(port):
    assert b"200" not in said(port, b"GET / HTTP/1.1\r\nx: " + b"a" * (MOST_HEAD + 999))


def test_a_line_that_strangers_cause_is_said_seldom():
    seldom = Seldom(every_s=3600)
    lines = ["Invalid HTTP request received."] * 5 + ["another"]
    records = [logging.LogRecord("x", 30, "", 0, m, (), None) for m in lines]
    assert [seldom.filter(r) for r in records] == [True, *[False] * 4, True]
