"""What stands in front of the SuperLink's app on either listener."""

import asyncio

import pytest

from server import gates
from server.gates import (
    ACTIVATE,
    EXECUTOR_HEADERS,
    FLEET,
    HEALTH,
    MOST_BYTES,
    MOST_SMALL,
    NOT_ACTIVATED,
    PUSH,
    PUSH_OBJECT,
    TASK_HEADERS,
    TOKEN_HEADER,
    AdminGate,
    PublicGate,
)

SEEN = []
SAID = []
READ = []
PROTOBUF = {"content-type": "application/protobuf"}
TASK = {TASK_HEADERS[0].decode(): "token"}


async def app(scope, receive, send):
    """Answers everything, and reads the whole body first."""
    SEEN.append(scope["path"])
    more, body = scope["method"] == "POST", b""
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event.get("body", b"")
        more = event.get("more_body", False)
    SAID.append(body)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def ask(gate, path, *, method="POST", headers=None, body=b"", kind="http"):
    """Status of the answer; None where there was none."""
    for kept in (SEEN, SAID, READ):
        kept.clear()
    sent = []
    parts = [
        {"type": "http.request", "body": body[n : n + 2**20], "more_body": True}
        for n in range(0, len(body) or 1, 2**20)
    ]
    parts[-1]["more_body"] = False

    async def receive():
        READ.append(len(parts[0]["body"]))
        return parts.pop(0)

    async def send(event):
        sent.append(event)

    told = {"content-length": str(len(body))} | PROTOBUF
    told = told if headers is None else headers
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "client": ("203.0.113.9", 5),
        "headers": [(k.encode(), v.encode()) for k, v in told.items()],
    }
    asyncio.run(gate(scope, receive, send))
    ask.body = b"".join(e.get("body", b"") for e in sent)
    ask.headers = dict(next((e["headers"] for e in sent if "headers" in e), ()))
    return next((e["status"] for e in sent if "status" in e), None)


@pytest.fixture
def refused():
    return []


@pytest.fixture
def public(refused):
    looked = []
    gate = PublicGate(app, look=looked.append, refused=lambda *w: refused.append(w))
    gate.looked = looked
    return gate


@pytest.mark.parametrize("path", sorted(FLEET))
def test_what_a_node_needs_is_answered(public, path):
    assert ask(public, path, body=b"x") == 200
    assert [path] == SEEN
    assert len(public.looked) == 1


def test_health_is_answered_and_only_read(public):
    assert ask(public, HEALTH, method="GET", headers={}) == 200
    assert ask(public, HEALTH, method="POST") == 405
    assert not public.looked


def test_health_tells_what_is_wrong_to_whoever_asks():
    wrong = ["the disk is full"]
    gate = PublicGate(
        app, look=lambda _: 401, refused=lambda *_: None, well=lambda: wrong[0]
    )
    assert ask(gate, HEALTH, method="GET", headers={}) == 503
    assert ask.body == b'{"detail": "the disk is full"}'
    assert ask(gate, HEALTH, method="HEAD", headers={}) == 503
    assert not ask.body
    wrong[0] = ""
    assert ask(gate, HEALTH, method="GET", headers={}) == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/list-nodes",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/../control/start-run",
        "//v1/fleet/pull-messages",
        "/V1/FLEET/PULL-MESSAGES",
        "/docs",
        "/openapi.json",
        "/",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_else_is_answered_on_the_public_listener(public, refused, path, method):
    assert ask(public, path, method=method) == 404
    assert not SEEN
    assert refused == [("203.0.113.9", path, 404)]


def test_another_method_is_refused(public):
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "CONNECT"):
        assert ask(public, "/v1/fleet/get-run", method=method) == 405
        assert not SEEN


def test_a_body_of_unknown_or_too_great_length_is_refused(public):
    path = "/v1/fleet/push-object"
    assert ask(public, path, headers={}, body=b"x") == 411
    for length in ("-1", "+5", "", "9" * 5000):
        assert ask(public, path, headers={"content-length": length}) == 411
    assert ask(public, path, headers={"content-length": str(MOST_BYTES + 1)}) == 413
    assert not SEEN
    assert not READ


@pytest.mark.parametrize("path", sorted(FLEET - {PUSH_OBJECT}))
def test_only_a_chunk_may_be_large(public, path):
    assert ask(public, path, body=b"x" * MOST_SMALL) == 200
    assert ask(public, path, body=b"x" * (MOST_SMALL + 1)) == 413
    assert not READ
    assert ask(public, PUSH_OBJECT, body=b"x" * (MOST_SMALL + 1)) == 200


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-protobuf", "A" * 3000]
)
def test_what_is_no_protobuf_is_refused_before_it_is_read(public, kind):
    told = {"content-length": "1", "content-type": kind}
    assert ask(public, PUSH, headers=told, body=b"x") == 415
    assert not READ
    assert not SEEN
    told["content-type"] = "Application/Protobuf; charset=x"
    assert ask(public, PUSH, headers=told, body=b"x") == 200


def test_a_stranger_is_refused_before_anything_is_read_and_is_told_of(refused):
    gate = PublicGate(app, look=lambda _: 401, refused=lambda *w: refused.append(w))
    for path in sorted(FLEET - {ACTIVATE}):
        assert ask(gate, path, body=b"x" * 100) == 401
        assert ask.headers[b"connection"] == b"close"
    assert len(refused) == len(FLEET) - 1
    assert not READ
    assert not SEEN
    # a node whose key is not registered hears it in the words that it knows
    assert (ask(gate, ACTIVATE, body=b"x"), ask.body) == NOT_ACTIVATED
    assert not READ
    assert ask(gate, HEALTH, method="GET", headers={}) == 200


def test_a_push_is_judged_by_its_whole_body_and_handed_on_as_it_was(refused):
    judged = []

    def fair(body):
        judged.append(body)
        return body.startswith(b"good")

    gate = PublicGate(
        app, look=lambda _: 0, refused=lambda *w: refused.append(w), fair=fair
    )
    good, bad = b"good" + b"x" * 50_000, b"bad" + b"x" * 50_000
    assert ask(gate, PUSH, body=good) == 200
    assert [good] == SAID == judged
    assert ask(gate, PUSH, body=bad) == 400
    assert not SEEN
    assert refused == [("203.0.113.9", PUSH, 400)]
    assert ask(gate, PUSH_OBJECT, body=bad) == 200  # no message


@pytest.mark.parametrize("limit", ["PART_S", "BODY_S"])
def test_a_body_that_does_not_come_is_not_waited_for(public, monkeypatch, limit):
    monkeypatch.setattr(gates, limit, 0.05)
    sent = []

    async def receive():
        await asyncio.sleep(0.02 if limit == "BODY_S" else 60)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(event):
        sent.append(event)

    told = {"content-length": "60000"} | PROTOBUF
    headers = [(k.encode(), v.encode()) for k, v in told.items()]
    scope = {"type": "http", "method": "POST", "path": PUSH, "headers": headers}
    SEEN.clear()
    asyncio.run(asyncio.wait_for(public(scope, receive, send), 300))
    assert sent[0]["status"] == 503  # after which a node tries again
    assert not SEEN


def test_a_peer_that_leaves_in_the_middle_is_not_answered(public):
    async def receive():
        return {"type": "http.disconnect"}

    async def send(event):
        raise AssertionError(event)

    told = {"content-length": "5"} | PROTOBUF
    headers = [(k.encode(), v.encode()) for k, v in told.items()]
    scope = {"type": "http", "method": "POST", "path": PUSH, "headers": headers}
    SEEN.clear()
    asyncio.run(public(scope, receive, send))
    assert not SEEN


def test_a_body_that_is_longer_than_it_said_is_not_read_to_its_end(public):
    body = b"x" * (MOST_BYTES + 2**21)
    told = {"content-length": "5"} | PROTOBUF
    assert ask(public, PUSH_OBJECT, headers=told, body=body) == 413
    assert sum(READ) <= MOST_BYTES + 2**20
    assert not SEEN


def test_a_websocket_gets_no_answer(public):
    assert ask(public, "/v1/fleet/get-run", kind="websocket") is None
    assert ask(AdminGate(app, "t"), HEALTH, kind="websocket") is None
    assert not SEEN


def test_the_control_api_wants_the_token():
    gate = AdminGate(app, "right")
    path = "/v1/control/start-run"
    assert ask(gate, path) == 404
    assert ask(gate, path, headers={TOKEN_HEADER: "wrong"}) == 404
    assert not SEEN
    assert ask(gate, path, headers={TOKEN_HEADER: "right"}) == 200


EXECUTOR = {name.decode(): "x" for name in EXECUTOR_HEADERS}


def test_the_runtime_api_is_left_to_its_own_tokens_and_the_rest_is_shut():
    gate = AdminGate(app, "right")
    for shown in (TASK, EXECUTOR):
        assert ask(gate, "/v1/runtime/pull-messages", headers=shown, body=b"x") == 200
        assert SAID == [b"x"]
    assert ask(gate, HEALTH, method="GET") == 200
    for path in ("/docs", "/openapi.json", "/v1/fleet/pull-messages", "/v1/responses"):
        assert ask(gate, path, headers={TOKEN_HEADER: "right"}) == 404
        assert not SEEN


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {TOKEN_HEADER: "right"},
        dict.fromkeys(TASK, ""),
        *({n: v for n, v in EXECUTOR.items() if n != out} for out in EXECUTOR),
    ],
)
def test_the_runtime_api_reads_nothing_of_whom_it_cannot_know(shown):
    gate = AdminGate(app, "right")
    assert ask(gate, "/v1/runtime/push-object", headers=shown, body=b"x" * 9) == 401
    assert not READ
    assert not SEEN


def test_a_body_on_the_admin_listener_has_an_end():
    gate = AdminGate(app, "right")
    body = b"x" * (MOST_BYTES + 2**21)
    for path, shown in (
        ("/v1/runtime/push-object", TASK),
        ("/v1/control/start-run", {TOKEN_HEADER: "right"}),
    ):
        assert ask(gate, path, headers=shown, body=body) == 413
        assert sum(READ) <= MOST_BYTES + 2**20
        assert not SEEN
