"""Who signed a request, when by its own clock, and that nobody sends it a second time.

A node signs the time of a request and nothing else of it. Flower takes a time that is up
to 305 s behind the coordinator's clock but at most 5 s ahead, and takes it as often as it
is shown. Here 300 s are allowed either way, and each signed time counts once: whoever saw
a request on its way can do less with it than before, not more.

After a restart it is forgotten which times were used. One that lies behind is refused by
its age soon, as with Flower; one that lies ahead would be good for longer. So what is
taken ahead of time is first written down, generously: `ahead.json` holds, by key, up to
which time requests may have been taken, and a server that starts takes later ones only.
"""

import json
import logging
import time
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
)
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.superlink.routers.fleet import node_auth

from vgmedgen.errors import StateError
from vgmedgen.files import write_text
from vgmedgen.trust.nodekeys import MOST_SKEW_S

log = logging.getLogger(__name__)

_KEY = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()
_SIGNATURE = FLEET_HTTP_SIGNATURE_HEADER.lower().encode()
_STAMP = TIMESTAMP_HEADER.lower().encode()

NOBODY = 401  # not signed, not registered, or signed by another
OFF = 425  # "too early": the node goes on trying, and says that it is its clock
USED = 503  # the node tries again, and signs another time
GRANT_S = 30.0  # how far `ahead.json` is ahead of what was taken
MOST_STAMPS = 20_000  # of one key in ten minutes

Registered = Callable[[], Collection[str]]
"""Every registered public key, hex."""
Headers = Mapping[bytes, bytes]


class Skews:
    """Looks at what signed a request, and how far the clocks of nodes are from ours."""

    def __init__(self, *, worth_s: float, registered: Registered, ahead: Path) -> None:
        """Look for `registered` keys; `ahead` is the file that outlives a restart."""
        self._worth_s = worth_s
        self._registered = registered
        self._grants = Grants(ahead)
        self._used: dict[
            str, dict[float, None]
        ] = {}  # key -> times, in order of arrival
        self.found: dict[str, float] = {}  # public key, hex -> seconds ahead

    def __call__(self, headers: Headers) -> int:
        """The status to refuse a request with; 0 where a registered node signed it now."""
        try:
            name = key_of(headers)
            stamp = headers[_STAMP]
            signature = b64decode(headers[_SIGNATURE], validate=True)
            if name not in self._registered():
                return NOBODY
            # anybody can claim a hospital's key; only its node can sign with it
            public = bytes_to_public_key(bytes.fromhex(name))
            if not verify_signature(public, stamp, signature):
                return NOBODY
            signed = datetime.fromisoformat(stamp.decode("ascii")).timestamp()
        except Exception:  # noqa: BLE001 - whatever a stranger's bytes make of it
            return NOBODY
        return self._judged(name, signed)

    def _judged(self, name: str, signed: float) -> int:
        ahead = signed - datetime.now(UTC).timestamp()
        if abs(ahead) < self._worth_s:
            self.found.pop(name, None)
        else:
            self.found[name] = ahead
        if abs(ahead) >= MOST_SKEW_S:
            return OFF
        if ahead > SYSTEM_TIME_TOLERANCE and not self._grants.take(name, signed):
            return USED
        return 0 if self._first(name, signed) else USED

    def _first(self, name: str, signed: float) -> bool:
        """Whether this time of a key was not used before; from now on it was."""
        used = self._used.setdefault(name, {})
        over = datetime.now(UTC).timestamp() - MOST_SKEW_S
        while used and (oldest := next(iter(used))) < over:
            del used[oldest]
        if signed in used or len(used) >= MOST_STAMPS:
            return False
        used[signed] = None
        return True


class Grants:
    """Up to which time, ahead of ours, requests of a key may have been taken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before: dict[
            str, float
        ] = {}  # by earlier servers: only later ones are new
        self._all_before = 0.0
        self._granted: dict[str, float] = {}
        try:
            told = (
                json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            )
            self._before = {str(key): float(until) for key, until in told.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s cannot be read (%s)", path, type(error).__name__)
            self._all_before = (
                time.time() + MOST_SKEW_S
            )  # whatever was taken is over then

    def take(self, key: str, signed: float) -> bool:
        """Whether a request of that time may be taken; it is written down before it is."""
        if signed <= max(self._before.get(key, 0.0), self._all_before):
            return False
        if signed <= self._granted.get(key, 0.0):
            return True
        now, until = time.time(), signed + GRANT_S
        kept = {k: t for k, t in (self._before | self._granted).items() if t > now}
        try:
            write_text(self._path, json.dumps(kept | {key: until}))
        except StateError as error:
            log.warning("a node whose clock is ahead cannot be let in: %s", error)
            return False
        self._granted[key] = until
        return True


def key_of(headers: Headers) -> str:
    """The public key that a request names, hex.

    Raises:
        KeyError: if it names none.
        ValueError: if what it names is no base64.
    """
    return b64decode(headers[_KEY], validate=True).hex()


@contextmanager
def ours() -> Iterator[None]:
    """Have Flower look at signed times no more closely than the gate before it does."""
    with (
        mock.patch.object(node_auth, "SYSTEM_TIME_TOLERANCE", MOST_SKEW_S + 5.0),
        mock.patch.object(node_auth, "TIMESTAMP_TOLERANCE", 0.0),
    ):
        yield
