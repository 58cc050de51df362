"""What stands in front of the SuperLink's app: one gate per listener.

Flower serves its Fleet, Control and Runtime APIs on one port and asks nobody on the last
two who they are. So the app gets two listeners: hospitals reach the public one, where
only what their nodes need is answered; the coordinator's own processes reach the other
one, on loopback, where the Control API wants a token that only they can read.

Nobody's body is read before its sender is known, and none without an end. What is
refused is refused here, because Flower writes a line about every request that it refuses.
"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Mapping[bytes, bytes]

HEALTH = "/health"
ACTIVATE = "/v1/fleet/activate-node"
PULL = "/v1/fleet/pull-messages"
PUSH = "/v1/fleet/push-messages"
PUSH_OBJECT = "/v1/fleet/push-object"
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
MOST_SMALL = 64 * 2**10  # of one that carries no chunk; a node's have a few kB
PART_S = 20.0  # between two parts of a body
BODY_S = 60.0  # for all of it
CHUNK_S = 180.0  # for all of a chunk; a slow line sends several at once
MEDIA_TYPE = b"application/protobuf"
TOKEN_HEADER = "vgmedgen-admin-token"  # noqa: S105 - the name of a header
CONTROL = "/v1/control/"
RUNTIME = "/v1/runtime/"
TASK_HEADERS = (b"flwr-task-token",)
EXECUTOR_HEADERS = (
    b"flwr-superexec-ts",
    b"flwr-superexec-nonce",
    b"flwr-superexec-body-sha256",
    b"flwr-superexec-signature",
)
NOT_ACTIVATED = (
    412,
    b'{"code": 2004, "detail": "Failed to activate SuperNode."}',
)
"""How Flower answers a key that it does not know, which a node can tell its people."""

Look = Callable[[Headers], int | None]
"""The status to refuse a request by its headers with, or 0; must not raise."""
Known = Callable[[Any, Headers], None]
"""Hears of a request that passed the look: peer (address and port), headers."""
Fair = Callable[[bytes], bool]
"""Whether the body of a pushed message may be handed on; must not raise."""
Well = Callable[[], str]
"""What is wrong with the server, in words for anybody; empty if it is well. May block."""
Refused = Callable[[str, str, int], None]
"""Hears of a refused request: peer's address, path, status."""


class PublicGate:
    """Lets through what a hospital's node needs, in sizes that it needs."""

    def __init__(
        self,
        app: App,
        *,
        look: Look,
        refused: Refused,
        fair: Fair = lambda _: True,
        known: Known = lambda *_: None,
        well: Well = lambda: "",
    ) -> None:
        self._app = app
        self._look = look
        self._refused = refused
        self._fair = fair
        self._known = known
        self._well = well

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, hand on, or refuse."""
        if scope["type"] != "http":
            return  # no websocket has any business here
        path = str(scope["path"])
        headers = dict(scope["headers"])
        status = _public_status(scope["method"], path, headers)
        if not status and path == HEALTH:
            wrong = await asyncio.to_thread(self._well)
            if wrong:
                told = json.dumps({"detail": wrong}).encode()
                await _answer(send, 503, told if scope["method"] == "GET" else b"")
                return
        body = b""
        if not status and path in FLEET:
            status = self._look(headers) or 0
            if not status:
                self._known(scope.get("client"), headers)
                body, status = await _read(
                    receive, _most(path), CHUNK_S if path == PUSH_OBJECT else BODY_S
                )
            if status == _GONE:
                return
            if not status and path == PUSH and not self._fair(body):
                # 403 would tell a node that its run has ended, 429 to give up for good
                status = 400
        if status:
            peer = (scope.get("client") or ("?",))[0]
            self._refused(str(peer), path[:80], status)
            unknown = status == 401 and path == ACTIVATE  # noqa: PLR2004 - HTTP's own
            await _answer(send, *(NOT_ACTIVATED if unknown else (status, b"")))
            return
        await self._app(scope, _again(body, receive), send)


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
        if scope["type"] != "http":
            return
        body = b""
        status = self._status(scope["path"], dict(scope["headers"]))
        if not status and scope["path"] != HEALTH:
            body, status = await _read(receive, MOST_BYTES, CHUNK_S)
        if status == _GONE:
            return
        if status:
            await _answer(send, status)
            return
        await self._app(scope, _again(body, receive), send)

    def _status(self, path: str, headers: Headers) -> int:
        """The status to refuse a request with; 0 lets it through."""
        if path.startswith(CONTROL):
            told = headers.get(TOKEN_HEADER.encode(), b"")
            return 0 if hmac.compare_digest(told, self._token) else 404
        if path.startswith(RUNTIME):
            shown = _all(headers, TASK_HEADERS) or _all(headers, EXECUTOR_HEADERS)
            return 0 if shown else 401  # whether they are right is Flower's to say
        return 0 if path == HEALTH else 404


_GONE = -1  # the peer left; nobody is there to be answered


def _all(headers: Headers, names: tuple[bytes, ...]) -> bool:
    return all(headers.get(name) for name in names)


def _most(path: str) -> int:
    return MOST_BYTES if path == PUSH_OBJECT else MOST_SMALL


def _public_status(method: str, path: str, headers: Headers) -> int:
    """The status to refuse a request with; 0 lets it through."""
    if path == HEALTH:
        return 0 if method in {"GET", "HEAD"} else 405
    if path not in FLEET:
        return 404
    if method != "POST":
        return 405
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or len(length) > 20:  # noqa: PLR2004 - digits of 2**64
        return 411  # nodes always tell; without it a body could grow without end
    if int(length) > _most(path):
        return 413
    told = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return 0 if told == MEDIA_TYPE else 415


async def _read(receive: Receive, most: int, seconds: float) -> tuple[bytes, int]:
    """A whole body; or nothing, and the status to refuse it with."""
    body = bytearray()
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    try:
        while (left := end - loop.time()) > 0:
            async with asyncio.timeout(min(left, PART_S)):
                event = await receive()
            if event["type"] != "http.request":
                return b"", _GONE
            body += event.get("body", b"")
            if len(body) > most:
                return b"", 413
            if not event.get("more_body", False):
                return bytes(body), 0
    except TimeoutError:
        pass
    return b"", 503  # a node tries again after it, and gives up after 408


def _again(body: bytes, receive: Receive) -> Receive:
    """Hand on a body that was read; what comes after it is read by whoever asks."""
    told = False

    async def again() -> Event:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(send: Send, status: int, body: bytes = b"") -> None:
    kind = b"application/json" if body else b"text/plain"
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what may still come of the request is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
