"""Reads what the server asks, and refuses what this site cannot or must not answer."""

from flwr.app import Message

from client.contract import Site
from vgmedgen.configfile import plan_from_json
from vgmedgen.errors import BaseError, ExchangeError
from vgmedgen.exchange.schema import PROTOCOL
from vgmedgen.exchange.wire import DOWN, Kind
from vgmedgen.plan import Plan
from vgmedgen.training.order import Order


def words_of(message: Message) -> dict[str, str]:
    """The words of a message from the server.

    Raises:
        ExchangeError: if it has other records or words, or another protocol.
    """
    words = DOWN[Kind(message.metadata.message_type)].read_words(message.content)
    if words["protocol"] != PROTOCOL:
        raise ExchangeError(
            f"the server speaks protocol {words['protocol']}, this site {PROTOCOL}; "
            "install the same version on both sides"
        )
    return words


def plan_of(words: dict[str, str]) -> Plan:
    """The plan that a message carries.

    Raises:
        ConfigError: if a key is unknown or a value out of range.
        ExchangeError: if it is not the plan that its digest names.
    """
    plan = plan_from_json(words["plan"])
    if plan.digest != words["plan-digest"]:
        raise ExchangeError("the plan is not the one that its digest names")
    return plan


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
    form = DOWN[Kind(message.metadata.message_type)]
    return Order(
        run=words["run"],
        number=int(words["round"]),
        stage=words["stage"],
        turn=int(words["turn"]),
        plan=plan,
        weights=form.read_arrays(message.content, schema.down()),
    )
