"""Everything of the coordinator that touches Flower's internals, read in 1.41.0.

Flower is not forked: its own app is served behind our gates, its own clients are used,
and the loop that plays a run's server app is ours, so that no bundle is ever unpacked
and nothing is installed while a hospital waits. `tests/contract/test_flower_server.py`
holds each of these seams.
"""

import asyncio
import io
import logging
import signal
import threading
import zipfile
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import uvicorn
from flwr.common.constant import TIMESTAMP_HEADER, Status, SubStatus
from flwr.common.serde import (
    context_from_proto,
    context_to_proto,
    fab_to_proto,
    run_from_proto,
    user_config_from_proto,
    user_config_to_proto,
)
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.serverapp import ServerApp
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    TaskType,
)
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.cli.flower_superlink import (
    SuperLinkLifespan,
    _parse_superlink_lifespan_config,
)
from flwr.superlink.grid import HttpGrid
from flwr.superlink.main import create_app

from server.gates import TOKEN_HEADER, AdminGate, App, PublicGate, Refused
from vgmedgen.errors import StateError, UnreachableError

log = logging.getLogger(__name__)

ConfigOf = Callable[[str], Mapping[str, str]]
"""Our id of a run -> run config of its server app."""

GRACE_S = 5  # for open requests, when the SuperLink is told to stop
RUN_KEY = "run"  # in a run's Flower config: our own id of it
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_BUNDLE = """\
[project]
name = "vgmedgen"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "vgmedgen"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
run = ""
"""


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


@dataclass(frozen=True, kw_only=True)
class NodeSeen:
    """A node, as the SuperLink knows it."""

    node_id: int
    public_key: str  # hex of the PEM bytes
    online: bool
    last_seen: datetime | None


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run that an executor has taken on."""

    token: str
    engine: str  # Flower's id of the run


class Skews:
    """How far the clocks of nodes are from ours, by what they sign.

    Flower refuses a request whose signed time is more than 300 s off, and says no more
    than 401; so who is off, and by how much, is found out here.
    """

    def __init__(self, *, worth_s: float) -> None:
        self._worth_s = worth_s
        self.found: dict[str, float] = {}  # public key, hex -> seconds ahead

    def __call__(self, headers: Mapping[bytes, bytes]) -> None:
        """Look at one request; whatever is wrong with it is Flower's to refuse."""
        try:
            key = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()])
            stamp = headers[TIMESTAMP_HEADER.lower().encode()]
            signed = datetime.fromisoformat(stamp.decode())
            ahead = (signed - datetime.now(UTC)).total_seconds()
            name = key.hex()
            if abs(ahead) < self._worth_s:
                self.found.pop(name, None)
                return
            signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER.lower().encode()])
            # anybody can claim a hospital's key; only its node can sign with it
            if verify_signature(bytes_to_public_key(key), stamp, signature):
                self.found[name] = ahead
        except (KeyError, ValueError, TypeError):
            return


async def serve(link: Link, *, skews: Skews, refused: Refused) -> None:
    """Serve a SuperLink on both listeners until a signal ends it."""
    with mock.patch("sys.argv", ["flower-superlink", *_arguments(link)]):
        config = _parse_superlink_lifespan_config()
    app = create_app(config, SuperLinkLifespan)
    shared: dict[str, Any] = {
        "log_level": "warning",
        "timeout_graceful_shutdown": GRACE_S,
        "server_header": False,
    }
    admin = uvicorn.Server(
        uvicorn.Config(
            AdminGate(app, link.token), host="127.0.0.1", port=link.admin_port, **shared
        )
    )
    public = uvicorn.Server(
        uvicorn.Config(
            PublicGate(app, look=skews, refused=refused),
            host=link.host,
            port=link.port,
            lifespan="off",  # the admin listener owns the app's
            ssl_keyfile=str(link.key),
            ssl_certfile=str(link.certificate),
            **shared,
        )
    )
    await _serve_both(admin, public)


async def _serve_both(admin: uvicorn.Server, public: uvicorn.Server) -> None:
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
        second = asyncio.create_task(public.serve())
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


class _AdminToken:
    """Adds our token to what a Control client asks."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(
        self, context: ProtobufRequestContext, call_next: ProtobufCall
    ) -> httpx.Response:
        """Send the request with the token."""
        context.request.headers[TOKEN_HEADER] = self._token
        return call_next(context)


class Control:
    """What the coordinator asks of its SuperLink, over the admin listener."""

    def __init__(self, port: int, token: str) -> None:
        self._client = ControlHttpClient.from_server_address(
            server_address=f"127.0.0.1:{port}",
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="vgmedgen-server"),
                _AdminToken(token),
            ],
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def nodes(self) -> list[NodeSeen]:
        """Every registered node.

        Raises:
            UnreachableError: if the SuperLink does not answer.
        """
        with _reaching():
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [
            NodeSeen(
                node_id=node.node_id,
                public_key=node.public_key.hex(),
                online=node.status == "online",
                last_seen=_last_seen(node),
            )
            for node in found
            if node.status != "unregistered"
        ]

    def register(self, site: str, public_key: str) -> None:
        """Let a site's node in, by its public key.

        Raises:
            StateError: if another node has the key.
            UnreachableError: if the SuperLink does not answer.
        """
        request = RegisterNodeRequest(public_key=bytes.fromhex(public_key), name=site)
        with _reaching(f"the key of {site} cannot be registered"):
            self._client.RegisterNode(request)

    def unregister(self, node_id: int) -> None:
        """Shut a node out.

        Raises:
            UnreachableError: if the SuperLink does not answer.
        """
        with _reaching():
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def start(self, run: str) -> str:
        """Have a run played; returns Flower's id of it.

        The bundle holds a description and no code: nobody here or at a hospital would
        look at code in it.

        Raises:
            UnreachableError: if the SuperLink does not answer.
        """
        content = bundle()
        fab = Fab(sha256(content).hexdigest(), content, {})
        with _reaching("the SuperLink does not start the run"):
            told = self._client.StartRun(
                StartRunRequest(
                    fab=fab_to_proto(fab),
                    override_config=user_config_to_proto({RUN_KEY: run}),
                    federation="",
                )
            )
        return str(told.run_id)

    def stop(self, engine: str) -> None:
        """Stop a run by Flower's id; one that has ended stays as it is.

        Raises:
            UnreachableError: if the SuperLink does not answer.
        """
        try:
            with _reaching():
                self._client.StopRun(StopRunRequest(run_id=int(engine)))
        except StateError:
            return

    def ended(self, engine: str) -> str | None:
        """How a run ended by Flower's account; None while it goes on.

        Raises:
            UnreachableError: if the SuperLink does not answer.
        """
        try:
            with _reaching():
                told = self._client.ListRuns(ListRunsRequest(run_id=int(engine)))
        except StateError:
            return "unknown to this SuperLink"
        status = told.run_dict[int(engine)].status
        if status.status != Status.FINISHED:
            return None
        return f"{status.sub_status}: {status.details}".rstrip(": ")


@contextmanager
def _reaching(refused: str = "the SuperLink refuses") -> Iterator[None]:
    """Turn what goes wrong on the way to the SuperLink into our errors."""
    try:
        yield
    except httpx.TransportError:
        raise UnreachableError(
            "the coordinator's server does not answer on its admin port; start it with "
            "`vgmedgen-server start`"
        ) from None
    except httpx.HTTPStatusError as error:
        told = " ".join(error.response.text.split())[:200]
        raise StateError(f"{refused}: {error.response.status_code} {told}") from None


def _last_seen(node: Any) -> datetime | None:  # noqa: ANN401 - a protobuf type
    """When a node last said that it is there: it is online until some time after."""
    if not node.last_activated_at:
        return None
    if node.last_deactivated_at and node.status != "online":
        return datetime.fromisoformat(node.last_deactivated_at)
    if not node.online_until:
        return datetime.fromisoformat(node.last_activated_at)
    told = node.online_until - 2 * node.heartbeat_interval
    return datetime.fromtimestamp(told, UTC)


def bundle() -> bytes:
    """What Flower wants to ship to nodes: a description, and not one line of code."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        entry = zipfile.ZipInfo("pyproject.toml", date_time=(1980, 1, 1, 0, 0, 0))
        archive.writestr(entry, _BUNDLE)
    return content.getvalue()


def acquire(port: int, secret: bytes) -> Task | None:
    """Take on the next run that waits to be played.

    Raises:
        UnreachableError: if the SuperLink does not answer.
    """
    client = RuntimeHttpClient.from_server_address(
        server_address=f"127.0.0.1:{port}",
        insecure=True,
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(
                master_secret=secret, protected_methods={_ACQUIRE}
            ),
        ],
    )
    try:
        with _reaching("the SuperLink gives no task"):
            told = client.AcquireTask(
                AcquireTaskRequest(supported_task_types=[str(t) for t in TaskType])
            )
    finally:
        client.close()
    if not told.HasField("task") or not told.token:
        return None
    return Task(token=told.token, engine=str(told.task.run_id))


def play(port: int, token: str, app: ServerApp, config_of: ConfigOf) -> None:
    """Play an acquired run with the server app that is installed here.

    Args:
        port: of the admin listener.
        token: of the task.
        app: ours; what the run's bundle may hold is not looked at.
        config_of: run config of the app, by our own id of the run.

    Raises:
        Exception: whatever the app raises; Flower hears that it failed, not why.
    """
    grid = HttpGrid(f"127.0.0.1:{port}", insecure=True, token=token)
    client = grid._runtime_client  # noqa: SLF001
    beat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    beat.start()
    context, status = None, SubStatus.FAILED
    try:
        told = client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id = told.task_id
        TaskIdentity.run_id = told.run.run_id
        TaskIdentity.node_id = told.context.node_id
        context = context_from_proto(told.context)
        grid.set_run(run_from_proto(told.run))
        asked = user_config_from_proto(told.run.override_config)
        context.run_config = dict(config_of(str(asked.get(RUN_KEY, ""))))
        app(grid, context)
        status = SubStatus.COMPLETED
    finally:
        grid._retry_invoker.max_tries = 1  # noqa: SLF001 - the end must not wait
        try:
            client.PushTaskOutput(
                PushTaskOutputRequest(
                    context=context_to_proto(context) if context else None,
                    sub_status=status,
                    details="" if status == SubStatus.COMPLETED else "see the run",
                )
            )
        except httpx.HTTPError as error:
            log.warning("Flower was not told how the run ended: %s", error)
        if beat.is_running:
            beat.stop()
        grid.close()


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


def quiet() -> None:
    """Flower's own chatter at warnings, and once; ours says what happens."""
    for name in ("flwr", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    flowers = logging.getLogger("flwr")
    flowers.handlers.clear()  # it has a handler of its own, beside the root's
    flowers.propagate = True
