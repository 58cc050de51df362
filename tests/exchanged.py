"""An order and a reply to it, as Flower carries them."""

import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message

NODE, OTHER, RUN = 7, 8, 3


def order(node=NODE):
    """An order as the SuperLink keeps it."""
    meta = Metadata(
        run_id=RUN,
        message_id="",
        src_node_id=1,
        dst_node_id=node,
        reply_to_message_id="",
        group_id="1",
        created_at=time.time(),
        ttl=60.0,
        message_type="train",
    )
    content = RecordDict({"order": ConfigRecord({"node": str(node)})})
    return named(make_message(metadata=meta, content=content))


def named(message):
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def reply_to(message, size=10):
    numbers = Array(np.zeros(size, "float16"))
    content = RecordDict({"update": ArrayRecord({"m": numbers})})
    return named(Message(content, reply_to=message))
