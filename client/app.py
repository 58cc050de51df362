"""The Flower client app of a site: one handler per kind of message."""

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from client.contract import OpenSite, Site
from client.egress import guard
from client.ingress import order_of, plan_of, words_of
from vgmedgen import __version__
from vgmedgen.exchange.payload import check_names, pack
from vgmedgen.exchange.wire import UP, Kind
from vgmedgen.training.order import Order, Outcome


def build(open_site: OpenSite) -> ClientApp:
    """The client app of the site that `open_site` opens.

    Args:
        open_site: called for every message with Flower's context; must look only at
            what the node's operator set, never at anything that the server sent.
    """
    app = ClientApp(mods=[guard(open_site)])

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        """Say who is here, on which base, and what it could exchange."""
        site = open_site(context)
        words = words_of(message)
        digest = site.schema(plan_of(words)).digest
        origin = {
            "run": words["run"],
            **_self(site),
            "exchange": digest,
            "version": __version__,
        }
        return _reply(message, origin)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Train one round."""
        site = open_site(context)
        order = order_of(message, site)
        outcome = site.train(order)
        schema = site.schema(order.plan)
        flats = ArrayRecord()
        # A site hands back its whole group; only what trained in this round travels.
        for group, specs in schema.up(order.stage, order.factor).items():
            check_names(outcome.state, schema.groups[group])
            leaving = {spec.name: outcome.state[spec.name] for spec in specs}
            flats[group] = Array(pack(leaving, specs))
        reply = _reply(message, _origin(site, order))
        reply.content[UP[Kind.TRAIN].arrays] = flats
        reply.content[UP[Kind.TRAIN].numbers] = _numbers(outcome)
        return reply

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        """Held-out loss of the order's weights."""
        site = open_site(context)
        order = order_of(message, site)
        reply = _reply(message, _origin(site, order))
        reply.content[UP[Kind.EVALUATE].numbers] = _numbers(site.evaluate(order))
        return reply

    @app.query("install")
    def install(message: Message, context: Context) -> Message:
        """Install a release for synthesis on site."""
        site = open_site(context)
        order = order_of(message, site)
        digest = site.install(order, words_of(message)["manifest"])
        return _reply(message, _origin(site, order) | {"release": digest})

    return app


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


def _numbers(outcome: Outcome) -> MetricRecord:
    told: dict[str, int | float] = {
        "num-units": outcome.units,
        "epsilon-spent": outcome.epsilon,
    }
    if outcome.loss_sum is not None:
        told["loss-sum"] = outcome.loss_sum
    return MetricRecord({**told})


def _reply(message: Message, origin: dict[str, str]) -> Message:
    words = ConfigRecord({**origin})
    return Message(RecordDict({UP[Kind.HELLO].record: words}), reply_to=message)


def _open_site(context: Context) -> Site:
    # Imported with the first message: the site brings torch and the models.
    from client.site import open_site  # noqa: PLC0415

    return open_site(context)


app = build(_open_site)
