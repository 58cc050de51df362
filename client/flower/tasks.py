"""Takes the tasks of a SuperNode and has them answered by the client app that is here."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import httpx
from flwr.app import Array, Context, Error, Message
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime import run_clientapp
from flwr.supernode.runtime.run_clientapp import (
    pull_task_input,
    push_message,
    push_task_output,
)

from client.flower.patience import PatientHeartbeats
from client.node import TAKEN
from vgmedgen.errors import ExchangeError, VGMedGenError
from vgmedgen.exchange import unfolding
from vgmedgen.exchange.schema import SITE_ERROR

log = logging.getLogger(__name__)

POLL_S = 0.25
PULL_S = 1800.0  # a message has this long to arrive whole, over a slow line too
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


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
    beat = PatientHeartbeats(make_task_heartbeat_fn_http(client))
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
