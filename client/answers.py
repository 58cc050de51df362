"""Writes what a site answers; the egress guard then makes what leaves of it."""

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from client.contract import Site
from vgmedgen import __version__
from vgmedgen.config.plan import RunPlan
from vgmedgen.exchange.payload import check_names, pack
from vgmedgen.exchange.wire import UP, Kind
from vgmedgen.training.order import Order, Outcome


def present(message: Message, site: Site, run: str, plan: RunPlan) -> Message:
    """Say who is here, on which base, and what it could exchange."""
    digest = site.schema(plan).digest
    origin = {"run": run, **_self(site), "exchange": digest, "version": __version__}
    return _reply(message, origin | {"ledger": site.mark})


def trained(message: Message, site: Site, order: Order, outcome: Outcome) -> Message:
    """What a round of training has led to.

    Raises:
        ExchangeError: if the outcome's tensors are not those of the schema.
    """
    schema = site.schema(order.plan)
    flats = ArrayRecord()
    # A site hands back its whole group; only what trained in this round travels.
    for group, specs in schema.up(order.stage, order.factor).items():
        check_names(outcome.state, schema.groups[group])
        leaving = {spec.name: outcome.state[spec.name] for spec in specs}
        flats[group] = Array(pack(leaving, specs))
    reply = _reply(message, _origin(site, order) | {"ledger": site.mark})
    reply.content[UP[Kind.TRAIN].arrays] = flats
    reply.content[UP[Kind.TRAIN].numbers] = _numbers(site, outcome)
    return reply


def evaluated(message: Message, site: Site, order: Order, outcome: Outcome) -> Message:
    """The held-out loss of the order's weights."""
    reply = _reply(message, _origin(site, order))
    reply.content[UP[Kind.EVALUATE].numbers] = _numbers(site, outcome)
    return reply


def installed(message: Message, site: Site, order: Order, digest: str) -> Message:
    """The release that was installed."""
    return _reply(message, _origin(site, order) | {"release": digest})


def _self(site: Site) -> dict[str, str]:
    return {"site": site.name, "base": site.base_digest}


def _origin(site: Site, order: Order) -> dict[str, str]:
    return {
        "run": order.run,
        "round": str(order.number),
        "stage": order.stage,
        "exchange": site.schema(order.plan).digest,
        **_self(site),
    }


def _numbers(site: Site, outcome: Outcome) -> MetricRecord:
    told: dict[str, int | float] = {
        "num-units": outcome.units,
        "epsilon-spent": outcome.epsilon,
    }
    if outcome.loss_sum is not None and site.policy.metrics:
        told["loss-sum"] = outcome.loss_sum
    return MetricRecord({**told})


def _reply(message: Message, origin: dict[str, str]) -> Message:
    words = ConfigRecord({**origin})
    return Message(RecordDict({UP[Kind.HELLO].record: words}), reply_to=message)
