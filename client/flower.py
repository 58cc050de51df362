"""Everything of a site that touches Flower's internals, read in 1.41.0.

A stock SuperNode unpacks and runs whatever Python the coordinator ships. Here it only
carries messages: it runs with process isolation, and the process that takes its tasks is
ours, which runs the client app that is installed at the hospital, stays warm between
rounds, and never looks into a bundle. `tests/contract/test_flower_client.py` holds each
of these seams.
"""

import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, Context, Error, Message
from flwr.common.constant import SubStatus
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode import start_client_internal as supernode
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from flwr.supernode.runtime import run_clientapp
from flwr.supernode.runtime.run_clientapp import (
    pull_task_input,
    push_message,
    push_task_output,
)

from client.connection import explain
from client.node import TAKEN
from vgmedgen.errors import ExchangeError, StateError, VGMedGenError
from vgmedgen.exchange import unfolding
from vgmedgen.exchange.schema import SITE_ERROR

log = logging.getLogger(__name__)

POLL_S = 0.25
PULL_S = 1800.0  # a message has this long to arrive whole, over a slow line too
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"

NO_INTERVAL = 0.0  # seconds between heartbeats; Flower takes 10 to 1800


def run_supernode(
    *, address: str, ca: Path, key: Path, port: int, secret: Path
) -> None:
    """Be a SuperNode that runs no app itself, until told to stop.

    Args:
        address: host:port of the coordinator.
        ca: certificate that the coordinator's has to chain to.
        key: private key of this site's node.
        port: of the runtime API, on loopback.
        secret: file with what a runner proves itself with.
    """
    words = [
        *("--superlink", address, "--root-certificates", str(ca)),
        *("--auth-supernode-private-key", str(key)),
        *("--host", "127.0.0.1", "--port", str(port), "--isolation", "process"),
        *("--superexec-auth-secret-file", str(secret)),
    ]
    flowers = logging.getLogger("flwr")
    flowers.handlers.clear()  # it has a handler of its own, beside the root's
    flowers.propagate = True
    flowers.setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with (
        mock.patch("sys.argv", ["flower-supernode", *words]),
        # a bundle's settings are nobody's business here, and unpacking one to read them
        # lets a few bytes become gigabytes
        mock.patch.object(supernode, "get_fused_config_from_fab", return_value={}),
        mock.patch.object(httpx, "Client", Straight),
        mock.patch.object(
            supernode,
            "_pull_and_store_message",
            tidily(supernode._pull_and_store_message),  # noqa: SLF001
        ),
    ):
        flower_supernode()


def tidily(receive: Callable[..., int | None]) -> Callable[..., int | None]:
    """Flower's step that receives a message, so that a stopped run leaves nothing behind.

    A runner takes a task as soon as it is announced, before all of the message is here.
    Where the run is stopped meanwhile, Flower leaves the step by an exception that its own
    tidying does not catch: the runner would wait for the rest for ever, and no later
    message would be answered.
    """

    def received(*args: Any, **named: Any) -> int | None:  # noqa: ANN401
        for step in ("pull_object", "confirm_message_received"):
            named[step] = _caught(named[step])
        return receive(*args, **named)

    return received


def _caught(step: Callable[..., Any]) -> Callable[..., Any]:
    def tried(*args: Any) -> Any:  # noqa: ANN401
        try:
            return step(*args)
        except RunNotRunningException:
            raise RuntimeError("its run was stopped") from None

    return tried


class Straight(httpx.Client):
    """A client that goes nowhere but where it was told to.

    Flower's follows redirects: a server could have a site's update sent again to any
    host, in the clear, or have the node knock at doors inside the hospital.
    """

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **{**options, "follow_redirects": False})


@dataclass(frozen=True)
class Answering:
    """How a message becomes a reply that may leave: the app's, or an error code.

    Flower wedges a node whose reply answers another message, and sends the text of an
    exception; neither can happen here.
    """

    app: Callable[[Message, Context], Message]  # the client app that is installed here
    look: Callable[[Message, Message], None]  # raises where the reply may not leave
    dropped: Callable[[str], None]  # hears the code of a reply that did not leave
    folder: Path  # of the site; it is all that a context's node config tells

    def __call__(self, message: Message, context: Context, kind: str) -> Message:
        """The reply to `message`, a task of Flower's `kind`."""
        context.node_config = {
            "site": str(self.folder)
        }  # the operator's, no one else's
        try:
            _check_kind(kind)
            reply = self.app(message, context)
            self.look(message, reply)
        # SystemExit too: a library that exits must not take its last words outside
        except (Exception, SystemExit) as error:
            code = (
                error.code if isinstance(error, VGMedGenError) else VGMedGenError.code
            )
            log.exception("stopped at the last look (%s); only the code leaves", code)
            self.dropped(code)
            return Message(Error(code=SITE_ERROR, reason=code), reply_to=message)
        return reply


def run_tasks(port: int, secret: bytes, answering: Answering) -> None:
    """Answer the messages of the SuperNode on `port`, one after the other, for ever.

    Args:
        port: of its runtime API, on loopback.
        secret: what the SuperNode knows a runner by.
        answering: makes the replies.
    """
    unfolding.limit(Array)
    client = _client(
        port,
        "SuperExec",
        SuperExecAuthHttpInterceptor(
            master_secret=secret, protected_methods={_ACQUIRE}
        ),
    )
    pull = partial(pull_and_inflate_object_from_tree, max_time=PULL_S)
    with mock.patch.object(run_clientapp, "pull_and_inflate_object_from_tree", pull):
        while True:
            _run_next(client, port, answering)


def _run_next(client: RuntimeHttpClient, port: int, answering: Answering) -> None:
    # every kind of task: one that nobody took would block the node for ever
    asked = AcquireTaskRequest(supported_task_types=[str(t) for t in TaskType])
    try:
        told = client.AcquireTask(asked)
    except httpx.HTTPError:
        time.sleep(1.0)  # the SuperNode is being restarted
        return
    if not told.HasField("task") or not told.token:
        time.sleep(POLL_S)
        return
    log.info(TAKEN)
    _run_one(port, told.token, str(told.task.type), answering)


def _run_one(port: int, token: str, kind: str, answering: Answering) -> None:
    client = _client(port, "flwr-clientapp", RuntimeTokenHttpInterceptor(token))
    beat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    beat.start()
    try:
        message, context, _, _ = pull_task_input(client)
        push_message(client, answering(message, context, kind), context)
        # never before the reply, and never without: Flower would wait for it for ever,
        # while a task that stops beating is answered for after a minute
        push_task_output(client, context, SubStatus.COMPLETED, "")
    except Exception:
        log.exception(
            "the answer did not reach the node; it is kept, and given again when the "
            "coordinator asks again"
        )
    finally:
        if beat.is_running:
            beat.stop()
        client.close()


def _check_kind(kind: str) -> None:
    if kind != TaskType.CLIENT_APP:
        raise ExchangeError(f"a task of kind {kind[:40]} is not run at a hospital")


def _client(
    port: int, component: str, *interceptors: ProtobufClientInterceptor
) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        server_address=f"127.0.0.1:{port}",
        insecure=True,
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name=component),
            *interceptors,
        ],
    )


def registered(
    address: str,
    context: ssl.SSLContext,
    key: ec.EllipticCurvePrivateKey,
    *,
    timeout: float,
) -> bool:
    """Whether a SuperLink knows the key, without joining it.

    Flower has no call that only asks: every other one wants the node's number, which a
    node learns by joining. But a SuperLink looks a key up before it looks at the interval
    of heartbeats that a node wants, so a request with an interval that none may have is
    always refused, changes nothing, and the reason tells: 2003 (interval) for a
    registered key, 2004 for any other. It does so too while the node is online.

    Args:
        address: host:port.
        context: how its certificate is checked.
        key: the node's, which signs the request and does not leave.
        timeout: seconds, of each step on the wire.

    Raises:
        StateError: if it took the request; the node is taken offline again.
        TrustError: if it refuses for another reason.
        UnreachableError: if it does not answer.
    """
    node = NodeAuthHttpInterceptor(key, key.public_key())
    public = public_key_to_bytes(key.public_key())
    asked = ActivateNodeRequest(public_key=public, heartbeat_interval=NO_INTERVAL)
    try:
        with (
            mock.patch.object(httpx, "Client", Straight),
            FleetHttpClient(
                f"https://{address}",
                interceptors=[node],
                verify=context,
                timeout=timeout,
            ) as client,
        ):
            taken = client.ActivateNode(asked)
            client.DeactivateNode(DeactivateNodeRequest(node_id=taken.node_id))
    except (httpx.HTTPError, ValueError) as error:  # ValueError: no protobuf
        match _code(error):
            case ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
                return True
            case ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
                return False
        raise explain(error, where=address) from None
    raise StateError(
        "the coordinator activated a node that sends no heartbeats, which Flower 1.41.0 "
        "never does; ask it which version it runs"
    )


def _code(error: Exception) -> int | None:
    if not isinstance(error, httpx.HTTPStatusError):
        return None
    told = FlowerError.from_json(error.response.text)
    return told.code if told else None
