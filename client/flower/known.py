"""Asks a SuperLink whether it knows a node's key, without joining it."""

import ssl
from unittest import mock

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client.connection import explain
from client.flower.supernode import Straight
from vgmedgen.errors import StateError

NO_INTERVAL = 0.0  # seconds between heartbeats; Flower takes 10 to 1800


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
