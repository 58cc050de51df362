"""The status of a coordinator as one web page: read-only, for loopback, self-contained.

The server renders all of it. A small script asks for the parts again every three
seconds; without scripts the page loads itself anew. Nothing else is loaded or run,
whatever a name on the page holds: the policy allows the page's own style and script by
their digests alone.
"""

import base64
import hashlib
import threading
import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.page_parts import parts
from server.status import Status, to_json
from server.words import clean
from vgmedgen.evaluation import markup
from vgmedgen.evaluation.markup import Html, join, tag

HOSTS = ("127.0.0.1", "localhost")  # a name that was rebound to loopback is refused
FRESH_S = 1.0  # several open pages cost one look
REFRESH_S = 3  # without scripts

Gather = Callable[[], Status]


def render(status: Status) -> str:
    """The whole page."""
    again = tag("noscript", tag("meta", http_equiv="refresh", content=REFRESH_S))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy()),
        tag("title", clean(f"{status.name}: status")),
        tag("style", Html(_style())),
        again,
    )
    stale = tag(
        "p",
        "No answer since ",
        tag("span", id="since"),
        ". What is below may be old; the page asks again by itself.",
        id="stale",
        class_="warning",
        hidden="",
        role="status",
    )
    body = tag(
        "body",
        stale,
        tag("main", fragment(status), id="live"),
        tag("script", Html(_script())),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def fragment(status: Status) -> Html:
    """What the script swaps: the parts of the page, each with an id."""
    return Html(clean(join(parts(status))))  # no markup of ours holds what this drops


def app(gather: Gather) -> ASGIApp:
    """The page as an ASGI app.

    Args:
        gather: looks at everything once; called in a thread.
    """
    look = _Look(gather)

    def page(_: Request) -> Response:
        return HTMLResponse(render(look()))

    def part(_: Request) -> Response:
        return HTMLResponse(fragment(look()))

    def facts(_: Request) -> Response:
        return Response(to_json(look()), media_type="application/json")

    paths = {"/": page, "/fragment": part, "/status.json": facts}
    served = Starlette(
        routes=[Route(path, answer, methods=["GET"]) for path, answer in paths.items()],
        middleware=[
            Middleware(_Headers),
            Middleware(
                TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False
            ),
        ],
    )
    served.router.redirect_slashes = False
    return served


class _Look:
    """What was gathered a moment ago, or now."""

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self._lock = threading.Lock()
        self._at = 0.0
        self._found: Status | None = None

    def __call__(self) -> Status:
        with self._lock:
            if self._found is None or time.monotonic() - self._at > FRESH_S:
                self._found = self._gather()
                self._at = time.monotonic()
            return self._found


class _Headers:
    """Adds what a browser must keep to, whatever the answer is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_headers())
            await send(message)

        return self._app(scope, receive, guarded)


@cache
def _headers() -> dict[str, str]:
    return {
        "Content-Security-Policy": f"{_policy()}; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


@cache
def _policy() -> str:
    return (
        f"default-src 'none'; style-src {_digest(_style())}; script-src "
        f"{_digest(_script())}; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )


def _digest(content: str) -> str:
    found = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{found}'"


@cache
def _style() -> str:
    """The report's style, so that both look like one product, and the page's own."""
    report = Path(markup.__file__).with_name("report.css").read_text("utf-8")
    return report + Path(__file__).with_name("page.css").read_text("utf-8")


@cache
def _script() -> str:
    return Path(__file__).with_name("page.js").read_text("utf-8")
