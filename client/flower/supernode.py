"""The SuperNode of a site: Flower's, made to carry messages and nothing else."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import fleet_http_connection as connection
from flwr.supernode import start_client_internal as supernode
from flwr.supernode.cli.flower_supernode import flower_supernode

from client.flower.patience import CarefulClient, ConfirmedHeartbeats, beats, patient


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
    beats.setLevel(logging.DEBUG)
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
        mock.patch.object(connection, "FleetHttpClient", CarefulClient),
        mock.patch.object(connection, "HeartbeatSender", ConfirmedHeartbeats),
        mock.patch.object(
            connection,
            "make_simple_http_retry_invoker",
            patient(make_simple_http_retry_invoker),
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
