"""Reads what the server asks, and refuses what this site cannot or must not answer."""

import re
from collections.abc import Mapping
from typing import Any

from flwr.app import Message

from client.contract import Site
from client.request import Request
from vgmedgen import __version__
from vgmedgen.config.load import plan_from_json
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import BaseError, ExchangeError, VersionError
from vgmedgen.exchange.schema import PROTOCOL, WORDS
from vgmedgen.exchange.wire import DOWN, Kind, fingerprint, size
from vgmedgen.training.order import Order

_RECORD = "order"  # of words, in every message there is


def known_of(message: Message) -> dict[str, str | int]:
    """What an audit log may say of a message, also of one that cannot be read.

    Every word is one whose form is known; the rest is left out.
    """
    kinds = {str(kind) for kind in Kind}
    kind = message.metadata.message_type
    facts: dict[str, str | int] = {"kind": kind if kind in kinds else "unknown"}
    if not message.has_content():
        return facts
    facts |= {"digest": fingerprint(message.content), "bytes": size(message.content)}
    words: Mapping[str, Any] = message.content.config_records.get(_RECORD, {})
    for name in ("run", "stage", "round", "turn", "coordinator"):
        word = words.get(name)
        if isinstance(word, str) and word and re.fullmatch(WORDS[name], word):
            facts[name] = int(word) if name in ("round", "turn") else word
    return facts


def kind_of(message: Message) -> Kind:
    """The kind of a message.

    Raises:
        ExchangeError: if it is none that a site serves.
    """
    told = message.metadata.message_type
    try:
        return Kind(told)
    except ValueError:
        raise ExchangeError(
            f"'{told[:40]}' is no message that a site answers; the coordinator has "
            "another version, or is not one"
        ) from None


def words_of(message: Message) -> dict[str, str]:
    """The words of a message from the server.

    Raises:
        ExchangeError: if it has other records or words.
        VersionError: if it says that it is of another protocol, whose words may differ.
    """
    kind = kind_of(message)
    if not message.has_content():
        raise ExchangeError("the message has no content")
    form = DOWN[kind]
    found: Mapping[str, Any] = message.content.config_records.get(form.record, {})
    said = found.get("protocol")
    if isinstance(said, str) and re.fullmatch("[0-9]{1,4}", said) and said != PROTOCOL:
        raise VersionError(
            f"the coordinator speaks protocol {said}, this site (version {__version__}) "
            f"{PROTOCOL}; install the same version on both sides"
        )
    return form.read_words(message.content)


def plan_of(words: Mapping[str, str]) -> RunPlan:
    """The plan that a message carries.

    Raises:
        ConfigError: if a key is unknown or a value out of range.
        ExchangeError: if it is not the plan that its digest names.
    """
    plan = plan_from_json(words["plan"])
    if plan.digest != words["plan-digest"]:
        raise ExchangeError("the plan is not the one that its digest names")
    if plan.to_json() != words["plan"]:
        raise ExchangeError(
            "the plan is not written as a plan is: every value, in order"
        )
    return plan


def check_round(request: Request) -> None:
    """Accept an order for a round of its own plan, under that round's stage and turn.

    Raises:
        ExchangeError: for any other.
    """
    plan, number = request.plan, request.number
    last = plan.align_rounds + plan.generate_rounds
    if not 1 <= number <= last:
        raise ExchangeError(
            f"an order for round {number}, but the run's plan has the rounds 1 to {last}"
        )
    if request.kind is Kind.INSTALL and number != last:
        raise ExchangeError(f"a release after round {number}, but the run has {last}")
    stage, turn = "align", number
    if number > plan.align_rounds:
        stage, turn = "generate", number - plan.align_rounds
    if (request.stage, request.turn) != (stage, turn):
        raise ExchangeError(
            f"an order for round {number} as {request.stage} turn {request.turn}; by the "
            f"run's plan it is {stage} turn {turn}"
        )


def order_of(message: Message, site: Site) -> Order:
    """The whole of a train, evaluate or install message.

    Raises:
        BaseError: if the run is on another base bundle.
        ExchangeError: if a tensor, number or word is not the schema's.
    """
    words = words_of(message)
    plan = plan_of(words)
    if words["base"] != site.base_digest:
        raise BaseError(
            f"the run needs base bundle {words['base'][:12]}, this site has "
            f"{site.base_digest[:12]}; install the bundle that the coordinator names"
        )
    schema = site.schema(plan)
    if words["exchange"] != schema.digest:
        raise ExchangeError(
            f"the run exchanges {words['exchange'][:12]}, this site's own schema is "
            f"{schema.digest[:12]}; install the same version on both sides"
        )
    form = DOWN[kind_of(message)]
    return Order(
        run=words["run"],
        number=int(words["round"]),
        stage=words["stage"],
        turn=int(words["turn"]),
        plan=plan,
        weights=form.read_arrays(message.content, schema.down()),
    )
