"""Looks at what sites send back: accepted whole, or left out under a code."""

import re
import time
from dataclasses import dataclass

import numpy as np
from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message

from server.launch import Launch
from vgmedgen.errors import BaseError, ExchangeError
from vgmedgen.exchange.merge import trained_factor
from vgmedgen.exchange.schema import CODE, SITE_ERROR, numbers_of
from vgmedgen.exchange.wire import UP, Kind, fingerprint, size

LATE = "late"
OFFLINE = "offline"
_FLOWER = {3: LATE, 4: LATE, 5: OFFLINE}  # Flower's codes that say no more than that
_MOST = 99  # the highest code of Flower's that has a name of ours


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What an acceptable reply must say of itself."""

    kind: Kind
    launch: Launch
    words: dict[str, str]  # what it must repeat: site, round, turn, stage


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A reply that is what the schema lists, no more and no less."""

    words: dict[str, str]
    numbers: dict[str, float]
    state: dict[str, np.ndarray]
    size: int  # bytes

    @property
    def units(self) -> int:
        """Units behind the reply."""
        return int(self.numbers["num-units"])

    @property
    def loss(self) -> float | None:
        """Mean loss over the units; None where it is withheld or there is no unit."""
        if not self.units or "loss-sum" not in self.numbers:
            return None
        return self.numbers["loss-sum"] / self.units


def whole(found: object, asked: str) -> Message:
    """What was pulled, once it is known to be a message that can be looked at.

    Flower builds it from objects that the site wrote, and checks neither their kinds nor
    what the message inside says it answers.

    Args:
        found: what Flower built.
        asked: id of the message that was asked with.

    Raises:
        ExchangeError: if it is no message, answers another, or holds no records.
        ValueError: for a name that is no text.
    """
    if not isinstance(found, Message):
        raise ExchangeError("the reply is no message")
    if found.metadata.reply_to_message_id != asked:
        raise ExchangeError("the reply says that it answers another message")
    if found.has_content():
        if not isinstance(found.content, RecordDict):
            raise ExchangeError("the reply holds something else than records")
        fingerprint(found.content)  # as the audit log will
    return found


def unreadable(asked: str) -> Message:
    """What stands for a reply that nobody can read: an error, with our code for it."""
    return make_message(
        metadata=Metadata(
            run_id=0,
            message_id="",
            src_node_id=0,
            dst_node_id=0,
            reply_to_message_id=asked,
            group_id="",
            created_at=time.time(),
            ttl=0,
            message_type=str(Kind.HELLO),  # Flower wants one of its own forms
        ),
        error=Error(SITE_ERROR, ExchangeError.code),
    )


def read(reply: Message, expected: Expected) -> Accepted:
    """Take a reply apart.

    Raises:
        BaseError: if the site is on another base bundle.
        ExchangeError: if the reply is not exactly what the schema lists.
    """
    if not reply.has_content():
        raise ExchangeError("the reply has no content")
    form, launch, content = UP[expected.kind], expected.launch, reply.content
    words = form.read_words(content)
    if words["base"] != launch.base_digest:
        raise BaseError(
            f"{words['site']} has base bundle {words['base'][:12]}, the run needs "
            f"{launch.base_digest[:12]}; install the run's bundle there"
        )
    if words["exchange"] != launch.schema.digest:
        raise ExchangeError(
            f"{words['site']} would exchange {words['exchange'][:12]}, the run "
            f"{launch.schema.digest[:12]}; install the same version on both sides"
        )
    asked = {"run": launch.run, **expected.words}
    for name, truth in asked.items():
        if words.get(name, truth) != truth:
            raise ExchangeError(f"the reply answers another {name}")
    numbers: dict[str, float] = {}
    if form.numbers:
        private = launch.config.privacy.enabled
        # without DP it is the site's to say whether its loss is told
        told = "loss-sum" in content.metric_records[form.numbers]
        numbers = form.read_numbers(content, numbers_of(private or not told))
    state: dict[str, np.ndarray] = {}
    if form.arrays:
        if numbers["num-units"] < 1:
            raise ExchangeError("an update needs at least one unit behind it")
        turn, stage = int(asked["turn"]), asked["stage"]
        factor = trained_factor(launch.config.merge, turn)
        for group in form.read_arrays(
            content, launch.schema.up(stage, factor)
        ).values():
            state |= group
    return Accepted(words=words, numbers=numbers, state=state, size=size(content))


def code_of(error: Error) -> str:
    """The one thing that may be said of an error reply: a code, never its text.

    Any number may stand in the reply: one that Flower does not give counts as a reply
    that is not what the schema lists.
    """
    code, reason = error.code, error.reason or ""
    if code == SITE_ERROR:
        return reason if re.fullmatch(CODE, reason) else ExchangeError.code
    if code in _FLOWER:
        return _FLOWER[code]
    return f"FL{code:02d}" if 0 <= code <= _MOST else ExchangeError.code
