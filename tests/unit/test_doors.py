"""Places on the public port: real sockets, and a listener as the server starts it."""

import asyncio
import socket
import ssl
import threading
import time

import pytest
import uvicorn

from server.flower import doors as doors_module
from server.flower import listener as listener_module
from server.flower.doors import Doors
from server.flower.listener import Brisk
from server.gates import PULL, PublicGate
from tests.loopback import HOST, authority, server_files

LIMITS = {
    "strangers": 12,
    "of_address": 8,
    "of_known": 10,
    "of_node": 3,
    "seconds": 600.0,
}


class Listener:
    """A public listener with few places; whoever says `node` in a header is a node."""

    def __init__(self, folder, **limits):
        self.doors = Doors(**{**LIMITS, **limits})
        pair = server_files(folder, authority(folder))
        self.ca = folder / "ca.crt"
        gate = PublicGate(
            answer,
            look=lambda headers: 0 if b"node" in headers else 401,
            refused=lambda *_: None,
            known=lambda peer, headers: self.doors.known(
                peer, headers[b"node"].decode()
            ),
        )
        (self.socket,) = self.doors.sockets(HOST, 0)
        self.port = self.socket.getsockname()[1]
        self.server = uvicorn.Server(
            uvicorn.Config(
                gate,
                http=Brisk,
                lifespan="off",
                log_level="warning",
                ws="none",
                timeout_graceful_shutdown=1,
                ssl_certfile=str(pair.certificate),
                ssl_keyfile=str(pair.key),
            )
        )
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def _run(self):
        asyncio.run(self.server.serve(sockets=[self.socket]))

    def dial(self, *, tls=True):
        """A connection, its TLS done."""
        plain = socket.create_connection((HOST, self.port), timeout=600)
        if not tls:
            return plain
        context = ssl.create_default_context(cafile=self.ca)
        return context.wrap_socket(plain, server_hostname=HOST)

    def close(self):
        self.server.should_exit = True
        self.thread.join()


async def answer(scope, receive, send):
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def ask(line, node="a"):
    """Ask on a connection as a node; the status of the answer."""
    head = (
        f"POST {PULL} HTTP/1.1\r\nhost: x\r\nnode: {node}\r\n"
        "content-type: application/protobuf\r\ncontent-length: 0\r\n\r\n"
    )
    told = b""
    while b"\r\n\r\n" not in told:
        try:
            if not told:
                line.sendall(head.encode())
            part = line.recv(4096)
        except OSError:
            return 0
        if not part:
            return 0
        told += part
    return int(told.split()[1])


def ended(line):
    """Whether the other side ended a connection."""
    try:
        return not line.recv(1)
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setattr(listener_module, "REQUEST_S", 600.0)
    made = []

    def listen(**limits):
        made.append(Listener(tmp_path, **limits))
        return made[-1]

    yield listen
    for one in made:
        one.close()


@pytest.mark.parametrize("tls", [True, False], ids=["after TLS", "before TLS"])
def test_a_node_gets_in_while_its_own_address_holds_every_place(start, tls):
    listener = start()
    held = [listener.dial(tls=tls) for _ in range(30)]
    node = listener.dial()
    assert ask(node) == 200
    more = [listener.dial(tls=tls) for _ in range(30)]
    assert ask(node) == 200  # its place is its own now
    assert ended(held[0])  # whoever came first has gone first
    for line in (*held, *more, node):
        line.close()


def test_no_more_strangers_are_held_than_there_are_places(start):
    listener = start()
    lines = [listener.dial() for _ in range(40)]
    assert len(listener.doors._strangers) <= LIMITS["of_address"]
    assert sum(listener.doors._counts.values()) == len(listener.doors._strangers)
    for line in lines:
        line.close()


def test_a_stranger_has_a_short_time(start):
    listener = start(seconds=0.5)
    for _ in range(100):  # on a busy machine the time can be over before we have spoken
        silent, spoken = listener.dial(tls=False), listener.dial()
        if ask(spoken) == 200:
            break
    assert ended(silent)
    assert ask(spoken) == 200
    for line in (silent, spoken):
        line.close()


def test_one_node_does_not_take_the_places_of_others(start):
    listener = start()
    other = listener.dial()
    assert ask(other, "other") == 200
    lines = [listener.dial() for _ in range(6)]
    assert [ask(line, "greedy") for line in lines] == [200] * 6
    assert len(listener.doors._nodes["greedy"]) == LIMITS["of_node"]
    assert ended(lines[0])
    assert ask(lines[-1], "greedy") == 200
    assert ask(other, "other") == 200
    for line in (*lines, other):
        line.close()


def test_places_are_given_back(start):
    listener = start()
    for _ in range(3):
        lines = [listener.dial() for _ in range(5)]
        assert ask(lines[0]) == 200
        for line in lines:
            line.close()
    end = time.monotonic() + 600
    while listener.doors._strangers or listener.doors._nodes:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not listener.doors._counts


def peer(address, port):
    """A connection of an address that this machine does not have."""
    made = doors_module.Connection()
    made.peer = (address, port)
    return made


def test_the_address_with_most_strangers_gives_way_when_all_places_are_taken():
    doors = Doors(strangers=6, of_address=4)
    lines = [peer("203.0.113.1", port) for port in range(4)]
    lines += [peer("203.0.113.2", port) for port in range(2)]
    lines += [peer("203.0.113.3", port) for port in range(2)]
    for line in lines:
        line.doors = doors
        doors.enter(line)
    assert doors._counts == {f"203.0.113.{n}": 2 for n in (1, 2, 3)}
    for line in lines:
        line.close()
    assert not doors._strangers


def test_an_address_from_which_a_node_signed_keeps_its_places_longest(monkeypatch):
    doors = Doors(strangers=6, of_address=2, of_known=4)
    first = peer("203.0.113.1", 1)
    lines = [first, *(peer("203.0.113.1", port) for port in range(2, 6))]
    lines += [peer("203.0.113.2", port) for port in range(9)]
    for number, line in enumerate(lines):
        line.doors = doors
        doors.enter(line)
        if not number:
            doors.known(first.peer, "key")
    assert doors._counts == {"203.0.113.1": 4, "203.0.113.2": 2}
    later = time.monotonic() + doors_module.KNOWN_S + 1
    monkeypatch.setattr(doors_module.time, "monotonic", lambda: later)
    assert not doors._is_known("203.0.113.1")
    for line in lines:
        line.close()


def test_every_address_that_a_name_stands_for_is_listened_on():
    found = Doors().sockets("127.0.0.1", 0)
    assert [door.getsockname()[0] for door in found] == ["127.0.0.1"]
    for door in found:
        door.close()
    with pytest.raises(OSError, match="assign requested address"):
        Doors().sockets("203.0.113.77", 8443)
