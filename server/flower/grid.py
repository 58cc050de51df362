"""Flower's grid, for replies from nodes that need not be honest.

Flower's own waits for every part of a reply that was announced, up to two hours and
longer than any round, ends with whatever exception a malformed one raises, and believes
what a reply says of itself. This one never waits: a reply whose parts are still under way
is taken up again at the next question.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import Array, Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.message_pb2 import Metadata as Told
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
)
from flwr.superlink.grid import HttpGrid

from vgmedgen.errors import ExchangeError
from vgmedgen.exchange import unfolding
from vgmedgen.exchange.schema import SITE_ERROR

log = logging.getLogger(__name__)

MOST_BYTES = 2**30  # of one reply; an update of all that is exchanged has some 10 MB


@dataclass
class _Coming:
    """A reply that was announced, and what has come of it."""

    told: Told  # by the SuperLink, which knows who sent it
    left: list[str]  # ids of objects
    contents: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


class PatientGrid(HttpGrid):
    """Hands out replies that are whole and by the node that was asked."""

    def __init__(self, address: str, *, token: str) -> None:
        super().__init__(address, insecure=True, token=token)
        unfolding.limit(Array)
        self._ends: dict[str, float] = {}  # message id -> when its answer is too late
        self._coming: dict[str, _Coming] = {}  # by id of the message that it answers

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, and remember for how long each waits for its answer."""
        sent = list(messages)
        ids = super().push_messages(sent)
        for message in sent:
            told = message.metadata
            self._ends[told.message_id] = time.time() + told.ttl
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that are whole by now.

        A reply that cannot be had, or is not what the SuperLink says that it is, is
        handed out as an error in its place.
        """
        asked = set(message_ids)
        self._forget()
        self._announce(asked - self._coming.keys())
        replies = []
        for name in sorted(asked & self._coming.keys()):
            reply = self._take(name, self._coming[name])
            if reply is not None:
                del self._coming[name]
                replies.append(reply)
        return replies

    def _forget(self) -> None:
        """Let go of answers that are too late for anybody to ask for them."""
        now = time.time()
        for name in [name for name, end in self._ends.items() if end < now]:
            del self._ends[name]
            self._coming.pop(name, None)

    def _announce(self, asked: set[str]) -> None:
        if not asked:
            return
        found = self._runtime_client.PullMessages(
            PullAppMessagesRequest(message_ids=asked)
        )
        trees: Iterable[ObjectTree] = found.message_object_trees
        for message, tree in zip(found.messages_list, trees, strict=True):
            told = message.metadata
            if told.reply_to_message_id in asked:
                left = list(
                    dict.fromkeys(o.object_id for o in iterate_object_tree(tree))
                )
                self._coming[told.reply_to_message_id] = _Coming(told, left)

    def _take(self, name: str, coming: _Coming) -> Message | None:
        """A reply, once all of it is there; an error in its place if it is no good."""
        try:
            if not self._fetch(coming):
                return None
        except ObjectPullError:
            why = "it was not sent whole before Flower gave it up, or is too large"
            return self._instead(name, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, why)
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self.node,
                run_id=self.run.run_id,
                message_object_id=coming.told.message_id,
            )
        )
        try:
            reply = inflate_object_from_contents(
                coming.told.message_id, coming.contents
            )
        except Exception as error:  # noqa: BLE001 - hostile bytes raise anything
            log.warning("a reply cannot be read: %s", type(error).__name__)
            return self._instead(name, SITE_ERROR, ExchangeError.code)
        if not isinstance(reply, Message) or not _same(reply.metadata, coming.told):
            log.warning("a reply says of itself that it is another; it is dropped")
            return self._instead(name, SITE_ERROR, ExchangeError.code)
        reply.metadata.__dict__["_message_id"] = coming.told.message_id
        return reply

    def _fetch(self, coming: _Coming) -> bool:
        """Fetch what is there; whether that is all of it."""
        pull = make_pull_object_fn_protobuf(
            pull_object_protobuf=self._runtime_client.PullObject,
            node=self.node,
            run_id=self.run.run_id,
        )
        while coming.left:
            name = coming.left[-1]
            try:
                content = pull(name)
            except ObjectUnavailableError:
                return False
            coming.left.pop()
            coming.contents[name] = content
            coming.size += len(content)
            if coming.size > MOST_BYTES:
                raise ObjectPullError(name, "the reply is too large")
        return True

    def _instead(self, name: str, code: int, reason: str) -> Message:
        return make_message(
            metadata=Metadata(
                run_id=self.run.run_id,
                message_id="",
                src_node_id=SUPERLINK_NODE_ID,
                dst_node_id=SUPERLINK_NODE_ID,
                reply_to_message_id=name,
                group_id="",
                created_at=time.time(),
                ttl=0,
                message_type=SYSTEM_MESSAGE_TYPE,
            ),
            error=Error(code=code, reason=reason),
        )


def _same(said: Metadata, told: Told) -> bool:
    return (
        said.src_node_id == told.src_node_id
        and said.reply_to_message_id == told.reply_to_message_id
        and said.run_id == told.run_id
    )
