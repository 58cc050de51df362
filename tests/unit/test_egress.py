"""The egress guard, handler by handler, without an engine."""

from dataclasses import replace
from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.supercore.task_identity import TaskIdentity

from client import answers, egress, gate
from client.ingress import order_of, plan_of, words_of
from client.request import Request
from client.turns import Turns
from tests.federation.toys import (
    ToySite,
    asking,
    client_of,
    config,
    prepare,
    raw,
    toys,
    weights,
)
from vgmedgen.config.plan import PrivacyConfig
from vgmedgen.errors import ExchangeError
from vgmedgen.exchange.schema import ExchangeSchema
from vgmedgen.exchange.wire import Kind
from vgmedgen.site.config import Policy

CONTEXT = SimpleNamespace(node_config={"partition-id": 0})


@pytest.fixture(autouse=True)
def _server(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def ask(tmp_path):
    """An order for round 1, as the server writes it."""
    launch = prepare(tmp_path, toys())

    def message(kind=Kind.TRAIN):
        return asking(launch, kind)

    return message


def ready(message, site=None):
    """A site that has begun the training of a round whose loss is asked for."""
    site = site or ToySite("alpha")
    if message.metadata.message_type == Kind.EVALUATE:
        words = words_of(message)
        asked = Request(kind=Kind.TRAIN, words=words, plan=plan_of(words), digest="d")
        Turns(site.folder).begin(asked, date(2026, 11, 21))
    return site


def guarded(handler, site=None):
    return lambda message: gate.guard(lambda context: ready(message, site))(
        message, CONTEXT, handler
    )


def good(message):
    return client_of([ready(message)])(message, CONTEXT)


@pytest.mark.parametrize("kind", Kind)
def test_a_good_reply_passes_unchanged(ask, kind):
    message = ask(kind)
    reply = good(message)
    again = guarded(lambda m, c: reply)(message)
    assert again is not reply
    assert dict(again.content) == dict(reply.content)
    assert again.metadata.reply_to_message_id == "m1"


def refused(message, handler, code):
    reply = guarded(handler)(message)
    assert reply.has_error()
    assert reply.error == Error(code=100, reason=code)
    assert reply.metadata.reply_to_message_id == "m1"


def test_a_handlers_own_error_is_replaced(ask):
    def handler(message, context):
        return Message(Error(code=2, reason="/data/patient-7"), reply_to=message)

    refused(ask(), handler, "VG30")


def test_an_answer_in_another_name_is_stopped(ask):
    def handler(message, context):
        reply = good(message)
        origin = {**reply.content["origin"], "site": "beta"}
        reply.content["origin"] = ConfigRecord(origin)
        return reply

    refused(ask(), handler, "VG30")


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.TRAIN])
def test_another_mark_than_the_ledgers_own_is_stopped(ask, kind):
    def handler(message, context):
        reply = good(message)
        origin = {**reply.content["origin"], "ledger": f"9-{'a' * 32}"}
        reply.content["origin"] = ConfigRecord(origin)
        return reply

    reply = guarded(handler)(ask(kind))
    assert reply.error == Error(code=100, reason="VG30")


def test_a_tensor_that_is_not_listed_is_stopped(ask):
    def handler(message, context):
        reply = good(message)
        extra = {"latents": Array(np.zeros(4, np.float16))}
        reply.content["update"] = ArrayRecord({**reply.content["update"], **extra})
        return reply

    refused(ask(), handler, "VG30")


def test_a_site_that_cannot_be_opened_fails_closed(ask):
    def broken(context):
        raise KeyError("/data/patient-7")

    reply = gate.guard(broken)(ask(), CONTEXT, lambda m, c: good(m))
    assert reply.error == Error(code=100, reason="VG00")


def test_a_kind_of_message_that_there_is_not_fails_closed(ask):
    message = ask()
    message.metadata.message_type = "query.patients"
    refused(message, lambda m, c: Message(RecordDict(), reply_to=m), "VG30")


def test_what_hides_beside_the_values_does_not_leave(ask):
    def handler(message, context):
        reply = good(message)
        array = reply.content["update"]["mapper"]
        array.data += b"patient 7 has a melanoma"
        reply.metadata.group_id = "patient 7"
        return reply

    reply = guarded(handler)(ask())
    assert b"patient" not in reply.content["update"]["mapper"].data
    assert "patient" not in reply.metadata.group_id


@pytest.mark.parametrize("kind", [Kind.TRAIN, Kind.EVALUATE])
def test_a_loss_is_stopped_under_dp_whatever_the_site_answers(tmp_path, kind):
    asked = replace(config(), privacy=PrivacyConfig(enabled=True))
    launch = prepare(tmp_path, toys(), asked)
    assert good(asking(launch, kind)).error == Error(code=100, reason="VG30")


@pytest.mark.parametrize("kind", [Kind.TRAIN, Kind.EVALUATE])
def test_a_loss_is_stopped_where_the_hospital_keeps_losses(ask, kind):
    message = ask(kind)
    reply = good(message)
    with pytest.raises(ExchangeError, match=r"numbers|no held-out loss"):
        egress.checked(message, reply, ToySite("alpha", policy=Policy(metrics=False)))


def test_a_reply_under_dp_that_spent_nothing_is_stopped(tmp_path):
    asked = replace(config(), privacy=PrivacyConfig(enabled=True))
    launch = prepare(tmp_path, toys(), asked)
    message, site = asking(launch, Kind.TRAIN), ToySite("alpha")
    order = order_of(message, site)
    outcome = replace(site.train(order), loss_sum=None)
    with pytest.raises(ExchangeError, match="spent nothing"):
        egress.checked(message, answers.trained(message, site, order, outcome), site)
    outcome = replace(outcome, epsilon=0.5)
    reply = answers.trained(message, site, order, outcome)
    leaves = egress.checked(message, reply, site)
    assert leaves["numbers"]["epsilon-spent"] == 0.5


# The last look: the same wall once more, from the outside.


def look(message, reply, limit=None):
    site = ToySite("alpha")
    most = egress.limit_of(site, plan_of(words_of(message)))
    egress.last_look(message, reply, most if limit is None else limit)


@pytest.mark.parametrize("kind", Kind)
def test_the_last_look_lets_every_good_reply_pass(ask, kind):
    message = ask(kind)
    look(message, good(message))
    look(message, Message(Error(code=100, reason="VG40"), reply_to=message))


def test_the_limit_is_that_of_the_largest_group_and_little_more():
    class Large(ToySite):
        def schema(self, plan):
            lora = {"a.A": np.zeros((4000, 1000), np.float16)}
            return ExchangeSchema.of({**weights(), "lora": lora})

    limit = egress.limit_of(Large("alpha"), config().plan)
    assert 8_000_000 < limit < 8_100_000
    # and it is enough for what Flower really sends, cut into pieces and named
    content = RecordDict(
        {"update": ArrayRecord({"lora": Array(np.zeros(4_000_000, np.float16))})}
    )
    sent = Message(content, 7, "train")
    assert 8_000_000 < len(raw(sent)) < limit - 8_000


def test_a_reply_with_more_bytes_than_a_reply_can_need_is_stopped(ask):
    message = ask()
    reply = good(message)
    size = len(raw(reply))
    look(message, reply, size)
    with pytest.raises(ExchangeError, match=f"{size} bytes, the limit is {size - 1}"):
        look(message, reply, size - 1)
    error = Message(Error(code=100, reason="VG40"), reply_to=message)
    with pytest.raises(ExchangeError, match="the limit is 10"):
        look(message, error, 10)


def test_bytes_that_hide_in_an_array_count(ask):
    message = ask()
    reply = good(message)
    reply.content["update"]["mapper"].data += b"patient" * 10_000
    with pytest.raises(ExchangeError, match="the limit is"):
        look(message, reply)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_reply_to_message_id", "m2"),
        ("_message_type", "evaluate"),
        ("_dst_node_id", 99),
        ("_src_node_id", 99),
        ("_run_id", 99),
        ("_group_id", "patient 7 has a melanoma"),
    ],
)
def test_a_reply_that_is_addressed_otherwise_is_stopped(ask, name, value):
    message = ask()
    reply = good(message)
    reply.metadata.__dict__[name] = value
    with pytest.raises(ExchangeError, match="is not that of the message"):
        look(message, reply)


@pytest.mark.parametrize(
    "error",
    [
        Error(code=2, reason="VG40"),
        Error(code=100, reason="VG4"),
        Error(code=100, reason="VG40\n"),
        Error(code=100, reason="/data/patient-7"),
        Error(code=100, reason="VG40 /data/patient-7"),
        Error(code=100),
    ],
)
def test_an_error_that_says_more_than_a_code_is_stopped(ask, error):
    message = ask()
    with pytest.raises(ExchangeError, match="only say its code"):
        look(message, Message(error, reply_to=message))


def test_an_error_that_carries_content_is_stopped(ask):
    message = ask()
    reply = good(message)
    reply.__dict__["_error"] = Error(code=100, reason="VG40")
    with pytest.raises(ExchangeError, match="either an answer or an error"):
        look(message, reply)
    reply.__dict__["_error"] = reply.__dict__["_content"] = None
    with pytest.raises(ExchangeError, match="either an answer or an error"):
        look(message, reply)


def _words(**words):
    return lambda content: {
        **content,
        "origin": ConfigRecord({**content["origin"], **words}),
    }


def _numbers(**numbers):
    told = {name.replace("_", "-"): value for name, value in numbers.items()}
    return lambda content: {
        **content,
        "numbers": MetricRecord({**content["numbers"], **told}),
    }


def _arrays(**arrays):
    return lambda content: {
        **content,
        "update": ArrayRecord({n: Array(a) for n, a in arrays.items()}),
    }


FLAT = np.zeros(4, np.float16)
WRONG = [
    ("records", lambda c: {**c, "latents": ArrayRecord({"lora": Array(FLAT)})}),
    ("records", lambda c: {n: r for n, r in c.items() if n != "numbers"}),
    ("records", lambda c: {**c, "numbers": ConfigRecord({"loss-sum": 1.0})}),
    ("records", lambda c: {**c, "origin": MetricRecord({"site": 1})}),
    ("records", lambda c: {}),
    ("other names", _words(note="x")),
    ("other names", _numbers(per_sample=1.0)),
    ("other names", _arrays(visual_prior=FLAT)),
    ("other names", lambda c: {**c, "update": ArrayRecord()}),
    ("word", _words(site="/data/ward-7")),
    ("word", _words(site="patient 7")),
    ("word", _words(site="x" * 65)),
    ("word", _words(site=7)),
    ("word", _words(site=["alpha"])),
    ("number", _numbers(loss_sum=[0.1, 0.2])),
    ("number", _numbers(loss_sum=float("nan"))),
    ("number", _numbers(loss_sum=float("inf"))),
    ("array", _arrays(lora=FLAT.astype(np.float32))),
    ("array", _arrays(lora=np.array([b"patient"]))),
]


@pytest.mark.parametrize(("told", "change"), WRONG)
def test_anything_but_a_replys_own_records_is_stopped(ask, told, change):
    message = ask()
    reply = good(message)
    reply.content = RecordDict(change(dict(reply.content)))
    with pytest.raises(ExchangeError, match=told):
        look(message, reply)


def test_a_reply_to_a_message_that_there_is_not_is_stopped(ask):
    message = ask(Kind.HELLO)
    for content in (good(message).content, RecordDict()):
        reply = Message(content, reply_to=message)
        for one in (message, reply):
            one.metadata.message_type = "query.patients"
        with pytest.raises(ExchangeError, match=r"not those of query\.patients"):
            egress.last_look(message, reply, 10_000)
        message.metadata.message_type = "query.hello"


def test_what_cannot_be_looked_at_does_not_leave(ask):
    with pytest.raises(ExchangeError, match="cannot be looked at") as caught:
        egress.last_look(ask(), "/data/patient-7", 10_000)
    assert "patient" not in str(caught.value)
