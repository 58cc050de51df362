"""What stands before the page: who may ask, for what, and where a browser may go.

The page shows pictures of patients. So it answers on loopback only, to requests that
name loopback as their host (another site's page may make its own name point here), from
a browser that was given the address with the key (a port on loopback is open to every
account of the machine), and for the few paths that the page itself uses. And it tells
the browser to load nothing from anywhere else.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio compiles templates
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-src 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
PATHS = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static|svelte)/.+"
    r"|/gradio_api/(info|startup-events|theme\.css|queue/(join|data)|run/predict|cancel"
    r"|heartbeat/\w+)/?|/exports/[\w-]+\.zip"
)
OUTSIDE = re.compile(
    rb'<meta\s+(?:property="og:|name="twitter:)[^>]*>'
)  # link previews
REFUSED = "this is not the address that `vgmedgen studio` printed; open that one\n"


class Guard:
    """ASGI middleware in front of the page.

    Args:
        app: the page.
        port: that the page is served on.
        key: that the address must carry once; a cookie holds it from then on.
    """

    def __init__(self, app: App, *, port: int, key: str) -> None:
        self._app, self._port, self._key = app, port, key
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no websocket
            await send({"type": "websocket.close", "code": 1008})
            return
        sent = dict(scope["headers"])
        if not self._is_ours(sent) or not PATHS.fullmatch(scope["path"]):
            await _answer(send, 403, REFUSED)
            return
        if scope["path"] == "/" and self._has_key(scope["query_string"]):
            cookie = f"{self._cookie}={self._key}; HttpOnly; SameSite=Strict; Path=/"
            told = [(b"location", b"/"), (b"set-cookie", cookie.encode())]
            await _answer(send, 303, "", told)
        elif not self._has_cookie(sent):
            await _answer(send, 403, REFUSED)
        elif scope["path"] == "/":
            await self._page(scope, receive, send)
        else:
            await self._app(scope, receive, _guarded(send))

    @property
    def _cookie(self) -> str:
        """Cookies know no ports, so two studios need two names."""
        return f"vgmedgen-studio-{self._port}"

    def _is_ours(self, sent: dict[bytes, bytes]) -> bool:
        """Whether neither host nor origin is another's."""
        host = sent.get(b"host", b"").decode("latin-1").lower()
        origin = sent.get(b"origin", b"").decode("latin-1").lower()
        return host in self._hosts and origin in {"", f"http://{host}"}

    def _has_key(self, query: bytes) -> bool:
        (given, *_) = parse_qs(query.decode("latin-1")).get("key", [""])
        return hmac.compare_digest(given.encode(), self._key.encode())

    def _has_cookie(self, sent: dict[bytes, bytes]) -> bool:
        try:
            jar = SimpleCookie(sent.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return False
        held = jar[self._cookie].value if self._cookie in jar else ""
        return hmac.compare_digest(held.encode(), self._key.encode())

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page's HTML, without what Gradio says of itself to link previews."""
        started: Message = {}
        body = b""

        async def collect(message: Message) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                started.update(message)
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            plain = OUTSIDE.sub(b"", body)
            kept = [
                (name, value)
                for name, value in started["headers"]
                if name.lower() != b"content-length"
            ]
            kept.append((b"content-length", str(len(plain)).encode()))
            await _guarded(send)({**started, "headers": kept})
            await send({"type": "http.response.body", "body": plain})

        # a compressed page could not be searched
        headers = [(n, v) for n, v in scope["headers"] if n != b"accept-encoding"]
        await self._app({**scope, "headers": headers}, receive, collect)


def _guarded(send: Send) -> Send:
    """Send with our headers in place of any of the same name."""

    async def out(message: Message) -> None:
        if message["type"] == "http.response.start":
            told = message.get("headers", [])
            own = [(n, v) for n, v in told if n.lower() not in HEADERS]
            message = {**message, "headers": [*own, *HEADERS.items()]}
        await send(message)

    return out


async def _answer(
    send: Send,
    status: int,
    text: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    told = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text.encode())).encode()),
        *headers,
    ]
    start = {"type": "http.response.start", "status": status, "headers": told}
    await _guarded(send)(start)
    await send({"type": "http.response.body", "body": text.encode()})
