"""The egress guard: the last that looks at a reply before it leaves the site.

`checked` stands behind every handler. What leaves is not the handler's reply but a new
one, made only of what was held against the exchange schema that this site computes.
`last_look` stands in the process that hands replies to Flower, shares no code with the
first, and looks at the reply as it will be sent. Both fail closed.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from client.contract import Site
from client.ingress import kind_of, plan_of, words_of
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import ExchangeError
from vgmedgen.exchange.merge import trained_factor
from vgmedgen.exchange.payload import pack
from vgmedgen.exchange.schema import numbers_of
from vgmedgen.exchange.wire import UP, Kind

FRAMING = 16_384  # bytes of a reply besides its tensors: words, numbers, Flower's own

# What a reply may hold, written out once more: this list must not change because
# another one did.
_RECORDS = {
    "query.hello": {"origin": ConfigRecord},
    "train": {"origin": ConfigRecord, "numbers": MetricRecord, "update": ArrayRecord},
    "evaluate": {"origin": ConfigRecord, "numbers": MetricRecord},
    "query.install": {"origin": ConfigRecord},
}
_NAMES = {
    "origin": {
        "site",
        "run",
        "round",
        "stage",
        "base",
        "exchange",
        "version",
        "release",
        "ledger",
    },
    "numbers": {"num-units", "loss-sum", "epsilon-spent"},
    "update": {"mapper", "lora"},
}


def checked(message: Message, reply: Message, site: Site) -> RecordDict:
    """The content that may leave as the answer to `message`.

    Args:
        message: what was asked.
        reply: what the handler wants to send.
        site: whose schema, names and policy count.

    Raises:
        ExchangeError: if the reply holds anything but what the schema lists for it.
    """
    if not reply.has_content():
        raise ExchangeError("a handler answered with an error of its own making")
    kind = kind_of(message)
    form = UP[kind]
    asked = words_of(message)
    plan = plan_of(asked)
    schema = site.schema(plan)
    words = form.read_words(reply.content)
    own = {"site": site.name, "base": site.base_digest, "exchange": schema.digest}
    if "ledger" in form.words:
        own["ledger"] = site.mark
    for name, truth in (asked | own).items():
        if words.get(name, truth) != truth:
            raise ExchangeError(f"the reply's word '{name}' is not this site's")
    private = plan.privacy.enabled
    withheld = private or not site.policy.metrics
    if withheld and kind is Kind.EVALUATE:
        raise ExchangeError(
            "no held-out loss leaves under differential privacy or policy.metrics false"
        )
    leaves = RecordDict({form.record: ConfigRecord({**words})})
    if form.numbers:
        numbers = form.read_numbers(reply.content, numbers_of(withheld))
        if private and numbers["epsilon-spent"] <= 0:
            raise ExchangeError("a reply under differential privacy spent nothing")
        leaves[form.numbers] = MetricRecord({**numbers})
    if form.arrays:
        specs = schema.up(
            asked["stage"], trained_factor(plan.merge, int(asked["turn"]))
        )
        states = form.read_arrays(reply.content, specs)
        leaves[form.arrays] = ArrayRecord(
            {group: Array(pack(states[group], specs[group])) for group in specs}
        )
    return leaves


def limit_of(site: Site, plan: RunPlan) -> int:
    """Bytes that no reply of a run can need more of, as it is sent."""
    schema = site.schema(plan)
    tensors = 2 * max(schema.size(group) for group in schema.groups)
    return FRAMING + tensors + tensors // 100  # Flower cuts arrays into named chunks


def last_look(message: Message, reply: Message, limit_bytes: int) -> None:
    """Accept a reply as it will be sent, whoever made it.

    Args:
        message: what was asked.
        reply: what is about to leave.
        limit_bytes: of the whole reply, serialised.

    Raises:
        ExchangeError: if anything about it is not as every reply has to be.
    """
    try:
        _look(message, reply, limit_bytes)
    except ExchangeError:
        raise
    except Exception as error:  # whatever cannot be looked at cannot leave
        raise ExchangeError(
            f"the reply cannot be looked at ({type(error).__name__}); it stays here"
        ) from error


def _look(message: Message, reply: Message, limit_bytes: int) -> None:
    asked, told = message.metadata, reply.metadata
    pairs = {
        "message": (told.reply_to_message_id, asked.message_id),
        "type": (told.message_type, asked.message_type),
        "receiver": (told.dst_node_id, asked.src_node_id),
        "sender": (told.src_node_id, asked.dst_node_id),
        "run": (told.run_id, asked.run_id),
        "group": (told.group_id, asked.group_id),
    }
    for name, (one, other) in pairs.items():
        if one != other:
            raise ExchangeError(f"the reply's {name} is not that of the message")
    if reply.has_error():
        reason = reply.error.reason or ""
        if reply.error.code != 100 or not re.fullmatch("VG[0-9]{2}", reason):  # noqa: PLR2004
            raise ExchangeError("an error may only say its code")
    if reply.has_content() is reply.has_error():
        raise ExchangeError("a reply is either an answer or an error")
    if reply.has_content():
        _look_inside(asked.message_type, reply.content)
    size = _serialised(reply)
    if size > limit_bytes:
        raise ExchangeError(f"the reply has {size} bytes, the limit is {limit_bytes}")


def _look_inside(kind: str, content: RecordDict) -> None:
    listed = _RECORDS.get(kind)
    if {name: type(record) for name, record in content.items()} != listed:
        raise ExchangeError(f"the reply's records are not those of {kind[:40]}")
    for name, record in content.items():
        if not record or not set(record) <= _NAMES[name]:
            raise ExchangeError(f"the reply's record '{name}' holds other names")
    for words in content.config_records.values():
        for word in words.values():
            fits = isinstance(word, str) and re.fullmatch("[A-Za-z0-9.+_-]{1,64}", word)
            if not fits:
                raise ExchangeError("a word of the reply is not one")
    for numbers in content.metric_records.values():
        for number in numbers.values():
            if not (isinstance(number, int | float) and math.isfinite(number)):
                raise ExchangeError("a number of the reply is not one")
    for arrays in content.array_records.values():
        for array in arrays.values():
            if (array.dtype, array.stype) != ("float16", "numpy.ndarray"):
                raise ExchangeError("an array of the reply is not of float16")


class _Sent(Protocol):
    """An object of Flower, as far as it is looked at."""

    @property
    def children(self) -> Mapping[str, Any] | None:
        """What it consists of."""
        ...

    def deflate(self) -> bytes:
        """Itself, as it is sent."""
        ...


def _serialised(thing: _Sent) -> int:
    """Bytes of an object of Flower and of all that it consists of, as they are sent."""
    children: Iterable[_Sent] = (thing.children or {}).values()
    return len(thing.deflate()) + sum(_serialised(child) for child in children)
