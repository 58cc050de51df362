"""Who may hold a connection to the public port, decided before TLS is spoken.

A connection is a stranger's until a request on it was signed by a registered node. All
strangers share a fixed number of places, those of one address a part of it, and each has
a short time; a newcomer for whom there is no place gets that of whoever has been here
longest. So whoever holds hundreds of connections holds them against himself: a node needs
a place only until it has signed, and then has one of its own, which no stranger takes.

Hospitals behind one forwarder or one NAT share an address with each other, and may share
it with an attacker: an address is never refused, only its oldest strangers are sent away.
"""

import asyncio
import logging
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from typing import Any

log = logging.getLogger(__name__)

MOST_STRANGERS = 256  # connections on which nobody has signed yet, of all addresses
MOST_OF_ADDRESS = 64  # of them, of one address
MOST_OF_KNOWN = 192  # of one address from which a node has signed lately
KNOWN_S = 3600.0  # lately
MOST_OF_NODE = 32  # connections of one registered key; it sends a few chunks at once
STRANGER_S = 20.0  # TLS and a first signed request, from one connection, in this time
TELL_S = 60.0  # between two lines about places that were taken
_RESET = struct.pack("ii", 1, 0)  # closing tells the peer at once, and keeps no state

Peer = tuple[str, int]
"""Address and port."""


class Doors:
    """Every connection of the public port, and whose it is."""

    def __init__(
        self,
        *,
        strangers: int = MOST_STRANGERS,
        of_address: int = MOST_OF_ADDRESS,
        of_known: int = MOST_OF_KNOWN,
        of_node: int = MOST_OF_NODE,
        seconds: float = STRANGER_S,
    ) -> None:
        self._most, self._most_of, self._most_of_known = strangers, of_address, of_known
        self._most_of_node, self._seconds = of_node, seconds
        # in the order in which they came
        self._strangers: dict[Peer, Connection] = {}
        self._nodes: dict[str, dict[Peer, Connection]] = {}
        self._counts: Counter[str] = Counter()  # strangers, by address
        self._signed: dict[
            str, float
        ] = {}  # address -> when a node last signed from it
        self._sent_away: Counter[str] = Counter()  # by address, since it was last told
        self._told = -TELL_S

    def sockets(self, host: str, port: int) -> list[socket.socket]:
        """Sockets to listen with, one for each address that `host` names.

        Raises:
            OSError: if one cannot be bound.
        """
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return [
            self._listening(family, where)
            for family, where in dict.fromkeys((one[0], one[4]) for one in found)
        ]

    def _listening(self, family: int, where: Any) -> "Door":  # noqa: ANN401
        door = Door(family, socket.SOCK_STREAM)
        door.doors = self
        try:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            door.bind(where)
        except OSError:
            door.close()
            raise
        return door

    def enter(self, connection: "Connection") -> None:
        """Give a newcomer a place, that of the longest stranger if there is none left."""
        address = connection.peer[0]
        most = self._most_of_known if self._is_known(address) else self._most_of
        if self._counts[address] >= most:
            self._send_away(address)
        elif len(self._strangers) >= self._most:
            self._send_away(self._busiest())
        self._strangers[connection.peer] = connection
        self._counts[address] += 1
        with suppress(RuntimeError):  # where no loop runs, as in some tests
            loop = asyncio.get_running_loop()
            connection.expires = loop.call_later(
                self._seconds, self._expire, connection
            )

    def known(self, peer: Peer, key: str) -> None:
        """A request on the connection of `peer` was signed by a registered `key`."""
        self._signed[peer[0]] = time.monotonic()
        connection = self._strangers.get(peer)
        if connection is None:
            return
        self._forget(connection)
        own = self._nodes.setdefault(key, {})
        if len(own) >= self._most_of_node:
            oldest = own[next(iter(own))]
            oldest.key = ""
            del own[oldest.peer]
            oldest.end()
        connection.key = key
        own[peer] = connection

    def leave(self, connection: "Connection") -> None:
        """A connection was closed, by whomever."""
        if self._strangers.get(connection.peer) is connection:
            self._forget(connection)
        own = self._nodes.get(connection.key, {})
        if own.get(connection.peer) is connection:
            del own[connection.peer]
            if not own:
                del self._nodes[connection.key]

    def _forget(self, connection: "Connection") -> None:
        """It is no stranger's any longer."""
        del self._strangers[connection.peer]
        address = connection.peer[0]
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]
        if connection.expires is not None:
            connection.expires.cancel()

    def _expire(self, connection: "Connection") -> None:
        if self._strangers.get(connection.peer) is connection:
            self._forget(connection)
            connection.end()

    def _is_known(self, address: str) -> bool:
        signed = self._signed.get(address)
        if signed is not None and time.monotonic() - signed > KNOWN_S:
            del self._signed[address]
            return False
        return signed is not None

    def _busiest(self) -> str:
        """The address with most strangers; those from which a node signed come last."""
        return max(self._counts, key=lambda a: (not self._is_known(a), self._counts[a]))

    def _send_away(self, address: str) -> None:
        """End the connection of the stranger from this address who came first."""
        peer = next(peer for peer in self._strangers if peer[0] == address)
        connection = self._strangers[peer]
        self._forget(connection)
        connection.end()
        self._sent_away[peer[0]] += 1
        now = time.monotonic()
        if now - self._told >= TELL_S:
            (worst, count), *_ = self._sent_away.most_common(1)
            log.warning(
                "%s holds more connections than it may (%d were ended); nodes keep theirs",
                *(worst, count),
            )
            self._told = now
            self._sent_away.clear()


class Connection(socket.socket):
    """A connection that tells the doors when it is closed."""

    peer: Peer
    doors: Doors
    key = ""  # of the node that signed on it
    expires: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Close it, and let go of its place."""
        if self.fileno() != -1:
            self.doors.leave(self)
        super().close()

    def end(self) -> None:
        """End it from our side; whoever reads from it hears that, and closes it."""
        with suppress(OSError):
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.shutdown(socket.SHUT_RDWR)


class Door(socket.socket):
    """A listening socket whose connections are counted from the first moment."""

    doors: Doors

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection, with a place."""
        plain, where = super().accept()
        made = Connection(plain.family, plain.type, plain.proto, plain.detach())
        made.doors, made.peer = self.doors, (str(where[0]), int(where[1]))
        self.doors.enter(made)
        return made, where
