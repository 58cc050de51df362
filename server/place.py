"""Files of a running coordinator, below its state folder, and who may read them."""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from vgmedgen.errors import StateError, UnreachableError
from vgmedgen.files import write_text
from vgmedgen.process.lock import is_held
from vgmedgen.trust.files import read_secret

LOCK = "lock"
SECRET = "secret.bin"  # noqa: S105 - the name of a file
TOKEN = "admin.token"  # noqa: S105 - the name of a file
SERVER = "server.json"
DATABASE = "superlink.db"
AUDIT = "audit.jsonl"
NODES = "nodes.json"  # what nodes said of themselves, by site
AHEAD = "ahead.json"  # by key, up to which time ahead of ours requests were taken
LEDGERS = "ledgers.json"  # how far each site's ledger had come
SKEW = "skew.json"  # seconds that a node's clock is ahead, by site


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where a running server listens."""

    public: int
    admin: int  # loopback
    page: int  # loopback; 0 where there is no page
    pid: int


def prepare(state: Path) -> None:
    """Make the state folder, and the secrets of this start.

    Raises:
        StateError: if that cannot be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        state.chmod(0o700)
        for name in (SECRET, TOKEN):
            _fresh(state / name)
    except OSError as error:
        raise StateError(
            f"cannot write {state}: {error.strerror or error}; the coordinator's state "
            "folder has to be its own user's, and have space left"
        ) from None


def secret(state: Path) -> bytes:
    """What the executor proves itself with, as Flower reads it from the file."""
    return read_secret(state / SECRET).strip()


def token(state: Path) -> str:
    """What a user of the Control API proves himself with."""
    return read_secret(state / TOKEN).decode().strip()


def say(state: Path, ports: Ports) -> None:
    """Keep where the server listens."""
    write_text(state / SERVER, json.dumps(asdict(ports)))


def ports(state: Path) -> Ports:
    """Where the running server listens.

    Raises:
        UnreachableError: if none runs.
    """
    if is_held(state / LOCK):
        try:
            return Ports(**json.loads((state / SERVER).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            pass
    raise UnreachableError(
        f"no server runs on {state}; start it with `vgmedgen-server start`"
    )


def _fresh(path: Path) -> None:
    path.unlink(missing_ok=True)
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "w", encoding="utf-8") as stream:
        stream.write(secrets.token_hex(32))
