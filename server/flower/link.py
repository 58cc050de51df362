"""The SuperLink: Flower's own app, behind a gate for each of its two listeners."""

import asyncio
import logging
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import uvicorn
from flwr.supercore.error import ApiErrorCode
from flwr.superlink.cli.flower_superlink import (
    SuperLinkLifespan,
    _parse_superlink_lifespan_config,
)
from flwr.superlink.main import create_app

from server.flower.clocks import Skews, key_of, ours
from server.flower.doors import Doors
from server.flower.listener import MOST_HEAD, MOST_LINKS, Brisk, Seldom
from server.flower.pushes import fair
from server.gates import ACTIVATE, AdminGate, App, PublicGate, Refused, Well

IDLE_S = 20  # a node lets go of a connection after 5 s without use, so before us
_PEM = re.compile(r"b?.-----BEGIN PUBLIC KEY-.*?-END PUBLIC KEY-----(\\n.)?", re.DOTALL)
_ASKED = f"[{ACTIVATE}][ApiError:{ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL}]"
GRACE_S = 5  # for open requests, when the SuperLink is told to stop


Owner = Callable[[str], str]
"""Public key, hex -> name of the site that it is registered for; empty for nobody."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """How a SuperLink is to listen."""

    host: str  # of the public listener
    port: int
    admin_port: int  # on loopback
    ca: Path
    certificate: Path
    key: Path
    database: Path
    secret: Path  # what an executor proves itself with
    token: str  # what a user of the Control API proves himself with


async def serve(
    link: Link, *, skews: Skews, refused: Refused, well: Well = lambda: ""
) -> None:
    """Serve a SuperLink on both listeners until a signal ends it."""
    with mock.patch("sys.argv", ["flower-superlink", *_arguments(link)]):
        config = _parse_superlink_lifespan_config()
    app = create_app(config, SuperLinkLifespan)
    shared: dict[str, Any] = {
        "log_level": "warning",
        "timeout_graceful_shutdown": GRACE_S,
        "server_header": False,
        "proxy_headers": False,  # whoever connects could tell any address in them
        "ws": "none",
    }
    admin = uvicorn.Server(
        uvicorn.Config(
            AdminGate(app, link.token), host="127.0.0.1", port=link.admin_port, **shared
        )
    )
    doors = Doors()
    public = uvicorn.Server(
        uvicorn.Config(
            PublicGate(
                app,
                look=skews,
                refused=refused,
                fair=fair,
                well=well,
                known=lambda peer, headers: doors.known(peer, key_of(headers)),
            ),
            lifespan="off",  # the admin listener owns the app's
            http=Brisk,
            h11_max_incomplete_event_size=MOST_HEAD,
            limit_concurrency=MOST_LINKS,
            timeout_keep_alive=IDLE_S,
            ssl_keyfile=str(link.key),
            ssl_certfile=str(link.certificate),
            **shared,
        )
    )
    logging.getLogger("uvicorn.error").addFilter(Seldom())
    with ours():
        await _serve_both(admin, public, doors.sockets(link.host, link.port))


async def _serve_both(
    admin: uvicorn.Server, public: uvicorn.Server, doors: list[socket.socket]
) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        admin.should_exit = public.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    # uvicorn would install handlers of its own, one listener's over the other's
    with mock.patch.object(uvicorn.Server, "capture_signals", _no_signals):
        first = asyncio.create_task(admin.serve())
        while not admin.started and not first.done():
            await asyncio.sleep(0.05)
        second = asyncio.create_task(public.serve(sockets=doors))
        await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
        stop()
        await asyncio.gather(first, second)


@contextmanager
def _no_signals(_: uvicorn.Server) -> Iterator[None]:
    yield


def _arguments(link: Link) -> list[str]:
    return [
        *("--host", "127.0.0.1", "--port", str(link.admin_port)),
        *("--ssl-ca-certfile", str(link.ca), "--ssl-certfile", str(link.certificate)),
        *("--ssl-keyfile", str(link.key), "--enable-supernode-auth"),
        *(
            "--database",
            str(link.database),
            "--disable-runtime-dependency-installation",
        ),
        *("--isolation", "process", "--superexec-auth-secret-file", str(link.secret)),
    ]


def in_background(app: App, port: int) -> Callable[[], None]:
    """Serve an ASGI app on loopback; returns what stops it."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=port, log_level="warning", server_header=False
        )
    )
    thread = threading.Thread(target=server.run, daemon=True, name="page")
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(GRACE_S)

    return stop


class Short(logging.Filter):
    """Says whose a public key is in place of its five lines, where Flower tells of one."""

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self._owner = owner

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten a record; none is dropped."""
        record.msg, record.args = _PEM.sub(self._named, record.getMessage()), ()
        return True

    def _named(self, found: re.Match[str]) -> str:
        lines = found[0].replace("\\n", "\n").removeprefix("b").strip("'\"\n")
        site = self._owner(f"{lines}\n".encode().hex())
        return f"(the key of {site})" if site else "(its key)"


class Asked(logging.Filter):
    """Drops Flower's complaint of a node that only asks if its key is known.

    `vgmedgen-client check` asks by an activation that is always refused; what Flower
    answers is what it wants to know, and no fault of anybody's.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record says anything else."""
        return not record.getMessage().startswith(_ASKED)


def quiet(owner: Owner = lambda _: "") -> None:
    """Flower's own chatter at warnings, and once; ours says what happens."""
    for name in ("flwr", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    flowers = logging.getLogger("flwr")
    flowers.handlers.clear()  # it has a handler of its own, beside the root's
    flowers.propagate = True
    flowers.addFilter(Short(owner))
    flowers.addFilter(Asked())
