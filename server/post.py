"""Sends messages to nodes and collects what comes back, never waiting past a deadline.

Flower reports a message that expired or a node that is gone under its own name, not the
node's; so the map from message to node is kept here.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError

from server.replies import unreadable, whole
from vgmedgen.errors import ExchangeError
from vgmedgen.exchange.wire import Kind

log = logging.getLogger(__name__)

_FIRST_POLL_S = 0.05
_LONGEST_POLL_S = 2.0  # a poll is a request to the SuperLink in deployment
_MOST_SENDS = 20  # of one question to one node, whose line may break again and again
_MOST_CRASHES = 3  # of its app under one question
_CRASHED = 8  # Flower's code of an app that is gone
_LOST = frozenset({3, 4, 5})
"""Codes with which the SuperLink says that a question or an answer was lost on the way, or
that a node is gone: the same question, asked again, may be answered."""
_SUPERLINK = 1  # the node that Flower says they are from; no site has this number
_MALFORMED = (  # what building a reply from a hostile site's objects can raise
    ExchangeError,
    ArithmeticError,
    AttributeError,
    DecodeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that is connected."""

    id: int
    key: str  # public, hex; empty in a simulation
    since: float  # when it connected, seconds since 1970; 0 in a simulation


class Post:
    """Messages under way, by the node that should answer."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self) -> list[Node]:
        """Nodes that are connected, in a fixed order."""
        found = [_node(told) for told in self._grid.get_nodes()]
        return sorted(found, key=lambda node: node.id)

    def send(
        self,
        kind: Kind,
        contents: Mapping[int, RecordDict],
        *,
        ttl_s: float,
        group: str,
    ) -> dict[str, int]:
        """Send one message to each node.

        Returns:
            Message id -> node, of those that were taken in.
        """
        messages = [
            Message(contents[node], node, str(kind), ttl=ttl_s, group_id=group)
            for node in sorted(contents)
        ]
        taken = set(self._grid.push_messages(messages))
        return {
            message.metadata.message_id: message.metadata.dst_node_id
            for message in messages
            if message.metadata.message_id in taken
        }

    def collect(self, pending: dict[str, int]) -> dict[int, Message]:
        """What has come back so far, by node; taken out of `pending`.

        Every message is asked for on its own: a reply that cannot be read is then its
        site's alone, an error under our code, and all others are as they came. Whose
        reply it is follows from which message was asked for, never from the reply.
        """
        replies: dict[int, Message] = {}
        for asked, node in list(pending.items()):
            reply = self._pull(asked, node)
            if reply is None:
                continue
            del pending[asked]
            if node not in replies or replies[node].has_error():
                replies[node] = reply
        return replies

    def _pull(self, asked: str, node: int) -> Message | None:
        """The reply to one message; None while there is none."""
        try:
            for found in self._grid.pull_messages([asked]):
                return whole(found, asked)
        except _MALFORMED as error:
            kind = type(error).__name__  # its text may quote what the site sent
            log.warning("the reply of node %d cannot be read (%s)", node, kind)
            return unreadable(asked)
        return None

    def ask(
        self,
        kind: Kind,
        contents: Mapping[int, RecordDict],
        *,
        timeout_s: float,
        return_s: float,
        group: str,
        gone: Callable[[], Collection[int]] = tuple,
    ) -> dict[int, Message]:
        """Send, and wait for all answers or until `timeout_s` is over.

        A node that is lost under the question, or whose answer is, is asked again when
        it is back: a site that has worked out its answer gives the same one at once.

        Args:
            kind: of the message.
            contents: by node.
            timeout_s: for the whole question.
            return_s: how long a lost node has to come back.
            group: name of the round in Flower's logs.
            gone: tells nodes that were shut out; they are not waited for.

        Returns:
            Node -> reply; a node that did not answer in time is not in it.
        """
        end = time.monotonic() + timeout_s
        asked = _Question(contents, time.time())
        pending = self.send(kind, contents, ttl_s=timeout_s, group=group)
        for _ in polls(timeout_s):
            replies = self.collect(pending)
            asked.hear(replies, waiting=pending.values())
            asked.let_go(gone())
            again = asked.to_ask_again(self.nodes(), return_s) if asked.open else []
            if again:
                for node in again:
                    log.info("node %d is back, and is asked again", node)
                left = max(1.0, end - time.monotonic())
                parts = {node: contents[node] for node in again}
                pending |= self.send(kind, parts, ttl_s=left, group=group)
            if not asked.open:
                break
        return asked.replies


class _Question:
    """Who has answered one question, who was lost under it, and who came back."""

    def __init__(self, contents: Mapping[int, RecordDict], now: float) -> None:
        self.replies: dict[int, Message] = {}
        self._sent = dict.fromkeys(contents, now)  # when each was asked last
        self._sends = dict.fromkeys(contents, 1)
        self._crashes = dict.fromkeys(contents, 0)
        self._lost: dict[int, tuple[float, Message]] = {}  # since when, what is said

    @property
    def open(self) -> bool:
        """Whether an answer is still waited for."""
        return bool(self._sent.keys() - self.replies.keys())

    def let_go(self, nodes: Collection[int]) -> None:
        """Wait for these no longer."""
        for node in nodes:
            self._sent.pop(node, None)
            self._lost.pop(node, None)

    def hear(
        self, replies: Mapping[int, Message], waiting: Collection[int] = ()
    ) -> None:
        """Take in what came back; the first answer of a node stands.

        Args:
            replies: by node.
            waiting: nodes that another send of this question is under way to; what
                became of an earlier one does not matter then.
        """
        for node, reply in replies.items():
            if node in self.replies and not self.replies[node].has_error():
                continue  # now the loss of an earlier send to it is told
            lost = _lost(reply)
            if lost and node in waiting:
                continue
            if lost and reply.error.code == _CRASHED:
                self._crashes[node] += 1
            if lost and self._may_ask(node):
                self._lost.setdefault(node, (time.monotonic(), reply))
            else:
                self.replies[node] = reply

    def _may_ask(self, node: int) -> bool:
        enough = self._crashes[node] >= _MOST_CRASHES
        return self._sends[node] < _MOST_SENDS and not enough

    def to_ask_again(self, nodes: list[Node], return_s: float) -> list[int]:
        """Nodes that lost the question and are back; others are given up in time."""
        online = {node.id: node for node in nodes}
        again = []
        for node, sent in list(self._sent.items()):
            if node in self.replies or not self._may_ask(node):
                continue
            seen = online.get(node)
            restarted = seen is not None and seen.since > sent
            if seen is not None and (restarted or node in self._lost):
                again.append(node)
                self._lost.pop(node, None)
                self._sent[node] = time.time()
                self._sends[node] += 1
        for node, (since, reply) in list(self._lost.items()):
            if time.monotonic() - since > return_s:
                self.replies[node] = reply
                del self._lost[node]
        return again


def _lost(reply: Message) -> bool:
    """Whether it says that the question was lost, by no fault of the site's."""
    if not reply.has_error():
        return False
    told = reply.error.code in _LOST and reply.metadata.src_node_id == _SUPERLINK
    return told or reply.error.code == _CRASHED


def _node(told: Any) -> Node:  # noqa: ANN401 - a protobuf type of Flower
    stamp = told.last_activated_at
    since = datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
    return Node(id=told.node_id, key=told.public_key.hex(), since=since)


def polls(timeout_s: float) -> Iterator[None]:
    """Come round again and again, ever more slowly, until `timeout_s` is over."""
    end = time.monotonic() + timeout_s
    pause = _FIRST_POLL_S
    while True:
        yield
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))
        pause = min(1.2 * pause, _LONGEST_POLL_S)
