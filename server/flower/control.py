"""What the coordinator asks of its SuperLink."""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import httpx
from flwr.common.constant import Status
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from server.flower.bundle import RUN_KEY, bundle
from server.flower.reaching import reaching
from server.gates import TOKEN_HEADER
from vgmedgen.errors import StateError


@dataclass(frozen=True, kw_only=True)
class NodeSeen:
    """A node, as the SuperLink knows it."""

    node_id: int
    public_key: str  # hex of the PEM bytes
    online: bool
    last_seen: datetime | None


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
        with reaching():
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
        with reaching(f"the key of {site} cannot be registered"):
            self._client.RegisterNode(request)

    def unregister(self, node_id: int) -> None:
        """Shut a node out.

        Raises:
            UnreachableError: if the SuperLink does not answer.
        """
        with reaching():
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
        with reaching("the SuperLink does not start the run"):
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
            with reaching():
                self._client.StopRun(StopRunRequest(run_id=int(engine)))
        except StateError:
            return

    def ended(self, engine: str) -> str | None:
        """How a run ended by Flower's account; None while it goes on.

        Raises:
            UnreachableError: if the SuperLink does not answer.
        """
        try:
            with reaching():
                told = self._client.ListRuns(ListRunsRequest(run_id=int(engine)))
        except StateError:
            return "unknown to this SuperLink"
        status = told.run_dict[int(engine)].status
        if status.status != Status.FINISHED:
            return None
        return f"{status.sub_status}: {status.details}".rstrip(": ")


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
