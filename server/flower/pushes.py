"""What a node may push: one reply of its own, to one order that it got.

Flower checks that a reply is by the node that was asked, but not that it is by the node
that sends it; and takes a message that replies to nothing for an order to whichever node
it names.
"""

import math

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from google.protobuf.message import DecodeError

MOST_OBJECTS = 256  # of one reply; each chunk of 5 MiB is one


def fair(body: bytes) -> bool:
    """Whether the body of a push is one reply of the node that sends it.

    That the node is the one whose key signed the request is Flower's check.
    """
    asked = PushMessagesRequest()
    try:
        asked.ParseFromString(body)
    except DecodeError:
        return False
    if len(asked.messages_list) != 1 or len(asked.message_object_trees) != 1:
        return False
    told, tree = asked.messages_list[0].metadata, asked.message_object_trees[0]
    times = [*asked.clientapp_runtime_list, told.created_at, told.ttl]
    return (
        told.src_node_id == asked.node.node_id
        and told.dst_node_id == SUPERLINK_NODE_ID
        and bool(told.reply_to_message_id)
        and bool(told.message_id)
        and told.message_id == tree.object_id
        and all(math.isfinite(time) and time >= 0 for time in times)
        and _small(tree)
    )


def _small(tree: ObjectTree) -> bool:
    count, left = 0, [tree]
    while left:
        count += 1
        left += left.pop().children
        if count + len(left) > MOST_OBJECTS:
            return False
    return True
