"""Sends messages to nodes and collects what comes back, never waiting past a deadline.

Flower reports a message that expired or a node that is gone under its own name, not the
node's; so the map from message to node is kept here.
"""

import time
from collections.abc import Iterator, Mapping

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from vgmedgen.exchange.wire import Kind

_FIRST_POLL_S = 0.05
_LONGEST_POLL_S = 2.0  # a poll is a request to the SuperLink in deployment


class Post:
    """Messages under way, by the node that should answer."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self) -> list[int]:
        """Nodes that are connected, in a fixed order."""
        return sorted(self._grid.get_node_ids())

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
        """What has come back so far, by node; taken out of `pending`."""
        replies: dict[int, Message] = {}
        for reply in self._grid.pull_messages(set(pending)) if pending else ():
            node = pending.pop(reply.metadata.reply_to_message_id, None)
            if node is not None:
                replies[node] = reply
        return replies

    def ask(
        self,
        kind: Kind,
        contents: Mapping[int, RecordDict],
        *,
        timeout_s: float,
        group: str,
    ) -> dict[int, Message]:
        """Send, and wait for all answers or until `timeout_s` is over.

        Returns:
            Node -> reply; a node that did not answer in time is not in it.
        """
        pending = self.send(kind, contents, ttl_s=timeout_s, group=group)
        replies: dict[int, Message] = {}
        for _ in polls(timeout_s):
            replies |= self.collect(pending)
            if not pending:
                break
        return replies


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
