"""What stands in front of the SuperLink's app on either listener."""

import asyncio

import pytest

from server.gates import FLEET, HEALTH, MOST_BYTES, TOKEN_HEADER, AdminGate, PublicGate

SEEN = []


async def app(scope, receive, send):
    """Answers everything, and reads the whole body first."""
    SEEN.append(scope["path"])
    more = scope["method"] == "POST"
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        more = event.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def ask(gate, path, *, method="POST", headers=None, body=b"", kind="http"):
    """Status of the answer; None where there was none."""
    SEEN.clear()
    sent = []
    parts = [
        {"type": "http.request", "body": body[n : n + 2**20], "more_body": True}
        for n in range(0, len(body) or 1, 2**20)
    ]
    parts[-1]["more_body"] = False

    async def receive():
        return parts.pop(0)

    async def send(event):
        sent.append(event)

    told = {"content-length": str(len(body))} if headers is None else headers
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "client": ("203.0.113.9", 5),
        "headers": [(k.encode(), v.encode()) for k, v in told.items()],
    }
    asyncio.run(gate(scope, receive, send))
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
    assert ask(public, path, headers={"content-length": "-1"}) == 411
    assert ask(public, path, headers={"content-length": str(MOST_BYTES + 1)}) == 413
    assert not SEEN


def test_a_body_that_is_longer_than_it_said_is_not_read_to_its_end(public):
    body = b"x" * (MOST_BYTES + 2**21)
    path = "/v1/fleet/push-object"
    assert ask(public, path, headers={"content-length": "5"}, body=body) is None


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


def test_the_runtime_api_is_left_to_its_own_tokens_and_the_rest_is_shut():
    gate = AdminGate(app, "right")
    assert ask(gate, "/v1/runtime/pull-messages") == 200
    assert ask(gate, HEALTH, method="GET") == 200
    for path in ("/docs", "/openapi.json", "/v1/fleet/pull-messages", "/v1/responses"):
        assert ask(gate, path, headers={TOKEN_HEADER: "right"}) == 404
        assert not SEEN
