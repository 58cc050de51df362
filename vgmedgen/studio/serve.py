"""Serve the studio on loopback, and leave nothing behind when it ends."""

import io
import os
import secrets
import shutil
import signal
import socket
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from vgmedgen.errors import ConfigError, StateError
from vgmedgen.files import visible_below
from vgmedgen.process.lock import only_one
from vgmedgen.studio.guard import Guard

if TYPE_CHECKING:
    from vgmedgen.studio.work import Studio

ADDRESS = "127.0.0.1"
CACHE = Path("cache", "studio")
LOCK = Path("cache", "studio.lock")
MOST_PORT = 65_535
GRACE_S = 1  # that an open page may keep the server alive
APART = frozenset({"quarantine", ".job"})  # folders of an export that stay at the site
SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",  # else every picture stays in the browser's storage
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def check_installed() -> None:
    """Refuse to start without the optional extra.

    Raises:
        ConfigError: if Gradio is not installed.
    """
    if find_spec("gradio") is None:
        raise ConfigError(
            "the studio needs Gradio, which is not installed; run: "
            "pip install 'vgmedgen[studio]'"
        )


@contextmanager
def workplace(site: Path) -> Iterator[None]:
    """One studio per site, with an empty private folder for what Gradio may write.

    Gradio reads its settings when it is imported, so this comes first; whatever was set
    outside for Gradio is set aside.

    Raises:
        StateError: if a studio of this site runs already, or its disk is full.
    """
    folder = site / CACHE
    with only_one(site / LOCK, "a studio"):
        _emptied(folder)
        for name in [name for name in os.environ if name.startswith("GRADIO_")]:
            del os.environ[name]
        os.environ |= {**SETTINGS, "GRADIO_TEMP_DIR": str(folder.resolve())}
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """The socket of the page, on loopback whatever else the machine has.

    Raises:
        ConfigError: if the port is no port.
        StateError: if it is in use.
    """
    if not 0 <= port <= MOST_PORT:
        raise ConfigError(f"--port must be in [0, {MOST_PORT}], got {port}")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((ADDRESS, port))
        except OSError as error:
            raise StateError(
                f"cannot listen on {ADDRESS}:{port}: {error.strerror or error}; stop "
                "what uses it, or choose another --port (0 takes any that is free)"
            ) from None
        yield held


def serve(
    studio: "Studio", held: socket.socket, announce: Callable[[str], None]
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        studio: what the page works with.
        held: from `listening`.
        announce: called with the address to open, which carries the key.
    """
    import uvicorn  # noqa: PLC0415 - comes with Gradio

    port, key = int(held.getsockname()[1]), secrets.token_urlsafe(24)
    config = uvicorn.Config(
        guarded(studio, port, key),
        log_level="warning",
        access_log=False,  # it would hold the key
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        ws="none",
    )
    server = uvicorn.Server(config)

    def stop(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    # the server raises again, for whoever had the signal before, what it was stopped by
    before = {
        number: signal.signal(number, stop)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        announce(f"http://{ADDRESS}:{port}/?key={key}")
        server.run(sockets=[held])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def guarded(studio: "Studio", port: int, key: str) -> Guard:
    """The whole application: the page, the downloads, and the guard before them."""
    import gradio  # noqa: PLC0415
    from fastapi import FastAPI, Response  # noqa: PLC0415

    from vgmedgen.studio.page import CSS, build, theme  # noqa: PLC0415

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/exports/{name}.zip")
    def download(name: str) -> Response:
        folder = studio.exported(name)
        if folder is None:
            return Response("there is no such export\n", status_code=404)
        return Response(packed(folder), media_type="application/zip")

    page = build(studio)
    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=ADDRESS,
        server_port=port,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=CSS,
    )
    return Guard(app, port=port, key=key)


def packed(folder: Path) -> bytes:
    """A zip of an export, without what the gate held back."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for path in visible_below(folder):
            inside = path.relative_to(folder)
            if not APART & set(inside.parts):
                archive.write(path, Path(folder.name) / inside)
    return content.getvalue()


def _emptied(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise StateError(
            f"cannot make {folder}: {error.strerror or error}; free some space, then "
            "start again"
        ) from None
