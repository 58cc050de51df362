"""The egress guard, handler by handler, without an engine."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client import egress
from server import orders
from tests.federation.toys import ToySite, client_of, config, prepare, toys
from vgmedgen.exchange.wire import Kind
from vgmedgen.plan import PrivacyConfig

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
        content = (
            orders.hello(launch)
            if kind is Kind.HELLO
            else orders.order(
                launch,
                kind,
                1,
                launch.start(),
                '{"a": 1}' if kind is Kind.INSTALL else "",
            )
        )
        asked = Message(content, 7, str(kind))
        asked.metadata.__dict__["_message_id"] = "m1"
        return asked

    return message


def guarded(handler, site=None):
    return lambda message: egress.guard(lambda context: site or ToySite("alpha"))(
        message, CONTEXT, handler
    )


def good(message):
    return client_of([ToySite("alpha")])(message, CONTEXT)


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

    reply = egress.guard(broken)(ask(), CONTEXT, lambda m, c: good(m))
    assert reply.error == Error(code=100, reason="VG00")


def test_a_kind_of_message_that_there_is_not_fails_closed(ask):
    message = ask()
    message.metadata.message_type = "query.patients"
    refused(message, lambda m, c: Message(RecordDict(), reply_to=m), "VG00")


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
    content = orders.order(launch, kind, 1, launch.start())
    message = Message(content, 7, str(kind))
    message.metadata.__dict__["_message_id"] = "m1"
    assert good(message).error == Error(code=100, reason="VG30")
