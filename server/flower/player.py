"""Takes on runs and plays them with the server app that is installed here."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx
from flwr.common.constant import SubStatus
from flwr.common.serde import (
    context_from_proto,
    context_to_proto,
    run_from_proto,
    user_config_from_proto,
)
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.serverapp import ServerApp
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from server.flower.bundle import RUN_KEY
from server.flower.grid import PatientGrid
from server.flower.reaching import reaching

log = logging.getLogger(__name__)

ConfigOf = Callable[[str], Mapping[str, str]]
"""Our id of a run -> run config of its server app."""

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run that an executor has taken on."""

    token: str
    engine: str  # Flower's id of the run


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
        with reaching("the SuperLink gives no task"):
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
    grid = PatientGrid(f"127.0.0.1:{port}", token=token)
    client = grid._runtime_client  # noqa: SLF001
    beat = HeartbeatSender(_patient(make_task_heartbeat_fn_http(client)))
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


def _patient(send: Callable[[], bool]) -> Callable[[], bool]:
    """A heartbeat that is sent again after a 500, as while the disk is full.

    Flower's ends its thread on it, and a run without heartbeats is over in a minute.
    """

    def sent() -> bool:
        try:
            return send()
        except httpx.HTTPStatusError as error:
            if error.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                return False
            raise

    return sent
