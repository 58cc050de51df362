"""Looks at what sites send back: accepted whole, or left out under a code."""

import re
from dataclasses import dataclass

import numpy as np
from flwr.app import Error, Message

from server.launch import Launch
from vgmedgen.errors import BaseError, ExchangeError
from vgmedgen.exchange.merge import trained_factor
from vgmedgen.exchange.schema import CODE, SITE_ERROR, numbers_of
from vgmedgen.exchange.wire import UP, Kind, size

LATE = "late"
OFFLINE = "offline"
_FLOWER = {3: LATE, 4: LATE, 5: OFFLINE}  # Flower's codes that say no more than that


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
    """The one thing that may be said of an error reply: a code, never its text."""
    reason = error.reason or ""
    if error.code == SITE_ERROR:
        return reason if re.fullmatch(CODE, reason) else ExchangeError.code
    return _FLOWER.get(error.code, f"FL{error.code:02d}")
