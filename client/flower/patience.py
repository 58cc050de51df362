"""How a SuperNode outlives a coordinator that is down, unwell or badly reached.

Flower's own gives up for good where a TLS handshake ends early, where a call is answered
by 500, and where a chunk arrived whose answer did not. A coordinator that restarts behind
a TCP forwarder looks like the first, one whose disk is full like the second, and any line
that breaks in the middle of an upload like the third. None of them is a reason to leave.
"""

import logging
import os
import signal
import ssl
from collections.abc import Callable

import httpx
from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.retry import RetryInvoker, RetryState
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.connection import chain_of, explain
from client.node import CONFIRMED

log = logging.getLogger(__name__)
# a line for the keeper, every twenty seconds: below the level that a person reads
beats = logging.getLogger(f"{__name__}.beats")

PATIENCE_S = (
    1800.0  # a call that failed for so long is given up, and the node starts anew
)
_AGAIN = frozenset(
    {
        httpx.codes.REQUEST_TIMEOUT,
        httpx.codes.TOO_EARLY,
        httpx.codes.TOO_MANY_REQUESTS,
    }
)
"""Refusals that say "later"; a proxy on the way gives them."""


def passes(error: Exception) -> bool:
    """Whether what went wrong on the way to a coordinator may be over in a while.

    Everything is, but a certificate that is not the coordinator's, and a refusal.
    """
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status >= httpx.codes.INTERNAL_SERVER_ERROR or status in _AGAIN
    if isinstance(error, httpx.TransportError):
        return not any(
            isinstance(e, ssl.SSLCertVerificationError) for e in chain_of(error)
        )
    return False


def patient(make: Callable[[], RetryInvoker]) -> Callable[[], RetryInvoker]:
    """Flower's maker of what repeats calls, so that only what is final ends a node.

    Refusals stay Flower's to judge: 401 ends the node, 403 says that its run is over.
    """

    def made() -> RetryInvoker:
        invoker = make()
        theirs, told = invoker.should_giveup, _Told()

        def gives_up(error: Exception) -> bool:
            if isinstance(error, httpx.TransportError) or passes(error):
                return not passes(error)
            return theirs is None or theirs(error)

        def backs_off(state: RetryState) -> None:
            if on_backoff is not None:
                on_backoff(state)
            if state.exception is not None:
                told.say(state.exception)

        def succeeds(state: RetryState) -> None:
            if on_success is not None:
                on_success(state)
            told.forget()

        on_backoff, on_success = invoker.on_backoff, invoker.on_success
        invoker.should_giveup = gives_up
        invoker.on_backoff, invoker.on_success = backs_off, succeeds
        invoker.recoverable_exceptions = (httpx.TransportError, httpx.HTTPStatusError)
        invoker.max_time = PATIENCE_S
        return invoker

    return made


class _Told:
    """Says why something is tried again, once until it works."""

    def __init__(self) -> None:
        self._last = ""

    def say(self, error: Exception) -> None:
        line = str(explain(error))
        if line != self._last:
            log.warning("%s; trying again", line)
        self._last = line

    def forget(self) -> None:
        self._last = ""


class PatientHeartbeats(HeartbeatSender):
    """Heartbeats that no passing fault of the other side stops."""

    def __init__(self, heartbeat_fn: Callable[[], bool]) -> None:
        super().__init__(self._beat)
        self._send, self._told = heartbeat_fn, _Told()

    def _beat(self) -> bool:
        try:
            confirmed = self._send()
        except (
            httpx.HTTPError,
            ValueError,
        ) as error:  # ValueError: no word of Flower's
            if isinstance(error, httpx.HTTPStatusError) and not passes(error):
                raise
            self._told.say(error)
            return False
        if confirmed:
            self._told.forget()
        return confirmed


class ConfirmedHeartbeats(PatientHeartbeats):
    """A node's: each one that was confirmed is told of, and a refusal ends the node."""

    def _beat(self) -> bool:
        try:
            confirmed = super()._beat()
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.UNAUTHORIZED:
                _leave(error)  # after 401 Flower does so itself
            return False
        except RuntimeError as error:  # it knows no such node: another one has to join
            _leave(error)
            return False
        if confirmed:
            beats.debug(CONFIRMED)
        return confirmed


def _leave(error: Exception) -> None:
    """End this node as a signal would: the keeper starts one that joins anew."""
    log.error(
        "the coordinator does not take this node's heartbeats: %s", explain(error)
    )
    os.kill(os.getpid(), signal.SIGINT)


class CarefulClient(FleetHttpClient):
    """Flower's calls, so that a chunk which arrived unseen does not undo a whole reply.

    A chunk is taken once. Where the line broke between its arrival and the answer, the
    same chunk sent again is refused, and Flower drops the reply: the coordinator would
    wait for its rest in vain. So "not stored" counts only for a chunk that cannot have
    arrived before. If it did not arrive after all, the coordinator asks again.
    """

    def __init__(self, *words: object, **options: object) -> None:
        super().__init__(*words, **options)  # type: ignore[arg-type]
        self._doubtful: set[tuple[str, str]] = set()

    def PushObject(self, request: PushObjectRequest) -> PushObjectResponse:  # noqa: N802
        """Push a chunk."""
        name = (request.session_id, request.object_id)
        try:
            answer = super().PushObject(request)
        except httpx.HTTPError:
            self._doubtful.add(name)
            raise
        if not answer.stored and name in self._doubtful:
            log.info("a chunk had arrived before the line broke; the reply goes on")
            answer = PushObjectResponse(stored=True)
        self._doubtful.discard(name)
        return answer
