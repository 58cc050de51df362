"""What stands in front of the SuperLink's app: one gate per listener.

Flower serves its Fleet, Control and Runtime APIs on one port and asks nobody on the last
two who they are. So the app gets two listeners: hospitals reach the public one, where
only what their nodes need is answered; the coordinator's own processes reach the other
one, on loopback, where the Control API wants a token that only they can read.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH = "/health"
FLEET = frozenset(
    f"/v1/fleet/{verb}"
    for verb in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
"""All that a node needs; registering is the coordinator's business and not in it."""

MOST_BYTES = 8 * 2**20  # of a request's body; a chunk of a message has 5 MiB
TOKEN_HEADER = "vgmedgen-admin-token"  # noqa: S105 - the name of a header
CONTROL = "/v1/control/"
RUNTIME = "/v1/runtime/"

Look = Callable[[Mapping[bytes, bytes]], None]
"""Sees the headers of a request to the fleet; must not raise."""
Refused = Callable[[str, str, int], None]
"""Hears of a refused request: peer's address, path, status."""


class PublicGate:
    """Lets through what a hospital's node needs, in sizes that it needs."""

    def __init__(self, app: App, *, look: Look, refused: Refused) -> None:
        self._app = app
        self._look = look
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, hand on, or refuse."""
        if scope["type"] != "http":
            return  # no websocket has any business here
        headers = dict(scope["headers"])
        status = _public_status(scope["method"], scope["path"], headers)
        if status:
            peer = (scope.get("client") or ("?",))[0]
            self._refused(str(peer), str(scope["path"])[:80], status)
            await _answer(send, status)
            return
        if scope["path"] in FLEET:
            self._look(headers)
        await self._app(scope, _bounded(receive), send)


class AdminGate:
    """Lets the coordinator's processes through: task tokens below Runtime, ours above."""

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, hand on, or refuse."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        path = scope.get("path", "")
        told = dict(scope.get("headers", ())).get(TOKEN_HEADER.encode(), b"")
        known = path == HEALTH or path.startswith(RUNTIME)
        if path.startswith(CONTROL):
            known = hmac.compare_digest(told, self._token)
        if scope["type"] != "http" or not known:
            if scope["type"] == "http":
                await _answer(send, 404)
            return
        await self._app(scope, receive, send)


def _public_status(method: str, path: str, headers: Mapping[bytes, bytes]) -> int:
    """The status to refuse a request with; 0 lets it through."""
    if path == HEALTH:
        return 0 if method in {"GET", "HEAD"} else 405
    if path not in FLEET:
        return 404
    if method != "POST":
        return 405
    length = headers.get(b"content-length", b"")
    if not length.isdigit():
        return 411  # nodes always tell; without it a body could grow without end
    return 413 if int(length) > MOST_BYTES else 0


def _bounded(receive: Receive) -> Receive:
    """Stop reading a body that is longer than it said it would be allowed to be."""
    seen = 0

    async def bounded() -> Event:
        nonlocal seen
        event = await receive()
        seen += len(event.get("body", b""))
        if seen > MOST_BYTES:
            return {"type": "http.disconnect"}
        return event

    return bounded


async def _answer(send: Send, status: int) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
