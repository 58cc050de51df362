"""Sites small enough for a test: numpy instead of models, the real apps around them."""

import json
import shutil
import tempfile
import weakref
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Message
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

import client.app
import server.app
from server.launch import Launch
from server.orders import Orders
from simulations import engine
from vgmedgen.base import Bundle
from vgmedgen.config.ranges import digest_of
from vgmedgen.config.run import FederationConfig, RunConfig
from vgmedgen.exchange.merge import Update, average
from vgmedgen.exchange.payload import on_wire
from vgmedgen.exchange.schema import ExchangeSchema
from vgmedgen.exchange.wire import Kind, to_sign
from vgmedgen.privacy.mark import NOTHING
from vgmedgen.release.signature import sign
from vgmedgen.site.config import Policy, SitePrivacy
from vgmedgen.training.order import Order, Outcome
from vgmedgen.trust import warrant

NAMES = ("alpha", "beta", "gamma", "delta")
BUNDLE = Bundle(Path("nowhere"), {"toy": True})


def weights(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {
        "mapper": {"anatomy.0.weight": (6, 4), "style.0.bias": (6,)},
        "lora": {"dit.to_q.A": (2, 8), "dit.to_q.B": (5, 2)},
    }
    return {
        group: {n: rng.normal(size=s).astype(np.float32) for n, s in named.items()}
        for group, named in shapes.items()
    }


@dataclass
class ToySite:
    """Pulls every tensor towards its own number; deterministic by name and round.

    Its policy lets everything in, and its folder is its own and gone with it.
    """

    name: str
    base_digest: str = BUNDLE.digest
    shape_of: dict = field(default_factory=weights)
    orders: list = field(default_factory=list)
    releases: list = field(default_factory=list)
    policy: Policy = field(default_factory=Policy)
    privacy: SitePrivacy = field(default_factory=SitePrivacy)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="toy-")))
    rehearsed: list = field(default_factory=list)
    mark: str = NOTHING  # of a ledger, which a toy has not

    def __post_init__(self):
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    @property
    def units(self):
        return 10 * self.number

    @property
    def number(self):
        return 1 + NAMES.index(self.name)

    @property
    def booked(self):
        return frozenset((order.run, order.number) for order in self.orders)

    def schema(self, plan):
        return ExchangeSchema.of(self.shape_of)

    def train(self, order):
        self.orders.append(order)
        group = "mapper" if order.stage == "align" else "lora"
        rng = np.random.default_rng([self.number, order.number, order.plan.seed])
        state = {
            name: array + 0.1 * rng.normal(size=array.shape).astype(np.float32)
            for name, array in order.weights[group].items()
        }
        return Outcome(state=state, units=10 * self.number, loss_sum=2.5 * self.number)

    def rehearse(self, order):
        self.rehearsed.append(order)
        return ToySite(self.name).train(order)

    def evaluate(self, order):
        return Outcome(state={}, units=self.number, loss_sum=1.5 * self.number)

    def install(self, order, manifest, signature=None):
        self.releases.append((order, manifest, signature))
        return digest_of(json.loads(manifest))


def config(**federation):
    asked = {
        "align_rounds": 1,
        "generate_rounds": 2,
        "min_sites": 2,
        "wait_s": 60.0,
        "round_timeout_s": 600.0,
        **federation,
    }
    return RunConfig(federation=FederationConfig(**asked))


WHEN = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)  # toy releases are signed then
KEYS = {"": None}  # public -> signing key, of all runs that were prepared


def prepare(folder, sites, asked=None, *, key=None, run="toy-1"):
    KEYS[key.public if key else ""] = key
    return Launch.prepare(
        run=run,
        folder=folder,
        config=asked or config(),
        bundle=BUNDLE,
        weights=weights(),
        sites=len(sites),
        coordinator=key.public if key else "",
    )


def asking(launch, kind, number=None, *, seed=None):
    """A message as the server of `launch` sends it, outside any engine.

    `seed` makes its weights others than those that the run starts from.
    """
    if number is None:  # a release comes after the last round
        number = launch.config.federation.rounds if kind is Kind.INSTALL else 1
    orders = Orders(launch, KEYS[launch.coordinator])
    if kind is Kind.HELLO:
        content = orders.hello()
    else:
        now = launch.start() if seed is None else weights(seed)
        manifest, signature = "", ""
        if kind is Kind.INSTALL:
            manifest = '{"a": 1}'
            signature = release_signature(KEYS[launch.coordinator], {"a": 1})
        content = orders.order(kind, number, now, manifest, signature)
    message = Message(content, 7, str(kind))
    message.metadata.__dict__["_message_id"] = "m1"
    return message


def release_signature(key, manifest):
    """What an install message carries; empty in a simulation."""
    return sign(manifest, key, WHEN).to_json() if key else ""


def rewritten(message, key=None, **words):
    """The same message with other words; signed anew by `key`, if there is one."""
    told = {**message.content["order"], **words}
    message.content["order"] = ConfigRecord(told)
    return message if key is None else signed(message, key)


def signed(message, key):
    """The same message, signed by `key` as it is now."""
    if "order" not in message.content:
        return message
    told = {**message.content["order"], "coordinator": key.public}
    message.content["order"] = ConfigRecord(told)
    said = to_sign(message.metadata.message_type, message.content)
    told["signature"] = warrant.sign(key, said)
    message.content["order"] = ConfigRecord(told)
    return message


def publish(folder, launch, told, final):
    folder.mkdir(parents=True, exist_ok=True)
    return json.dumps(dict(told))


def client_of(sites, *, tamper=None, mods=()):
    """The real client app over toy sites.

    `tamper(site, message, reply)` stands where a hostile site would: outside the egress
    guard. `mods` stand outside even of that, and see what the wire sees.
    """
    inner = client.app.build(lambda context: sites[context.node_config["partition-id"]])
    outer = ClientApp(mods=list(mods))

    def answer(message, context):
        reply = inner(message, context)
        site = sites[context.node_config["partition-id"]]
        return tamper(site, message, reply) if tamper else reply

    for register in (outer.train, outer.evaluate):
        register()(answer)
    for action in ("hello", "install"):
        outer.query(action)(answer)
    return outer


def play(launch, client_app, sites, *, how=publish, engine_name="inproc"):
    launch = replace(launch, sites=len(sites))
    engine.drive(
        server.app.build(how, KEYS[launch.coordinator]),
        client_app,
        sites=len(sites),
        run_config={"run-file": str(launch.path)},
        engine=engine_name,
    )


def expected(launch, sites, last):
    """Weights after round `last` of the `average` rule, without network or engine."""
    federation, now = launch.config.federation, weights()
    for number in range(1, last + 1):
        stage = federation.stage(number)
        group = "mapper" if stage == "align" else "lora"
        specs = launch.schema.groups
        order = Order(
            run=launch.run,
            number=number,
            stage=stage,
            plan=launch.config.plan,
            weights={name: on_wire(now[name], specs[name]) for name in now},
        )
        updates = []
        for site in sites:
            outcome = ToySite(site.name).train(order)
            state = on_wire(outcome.state, specs[group])
            updates.append(Update(site.name, float(outcome.units), state))
        now = {**now, group: average(updates)}
    return now


def same(one, other):
    """Whether two sets of weights are equal to the bit."""
    return all(
        one[group][name].tobytes() == other[group][name].tobytes()
        for group in one
        for name in one[group]
    )


def raw(message):
    """A message as the bytes that are sent."""
    return b"".join(o.deflate() for o in get_all_nested_objects(message).values())


class Wire:
    """Every message in either direction, as records and as bytes."""

    def __init__(self):
        self.down, self.up, self.raw = [], [], b""

    def __call__(self, message, context, call_next):
        self._keep(message, self.down)
        reply = call_next(message, context)
        self._keep(reply, self.up)
        return reply

    def _keep(self, message, where):
        where.append((message.metadata.message_type, message))
        self.raw += raw(message)


def toys(count=3):
    return [ToySite(name) for name in NAMES[:count]]


def with_words(reply, **words):
    """The same reply with other words of origin."""
    content = reply.content
    content["origin"] = ConfigRecord({**content["origin"], **words})
    return reply
