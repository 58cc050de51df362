"""What must be so before a server starts: its ports are free, its database is its own."""

import socket
import sqlite3
from pathlib import Path

from server import place
from server.kits import CONFIG, NODES, REMOVED
from vgmedgen.errors import StateError
from vgmedgen.trust import own


def check_port(host: str, port: int) -> None:
    """Refuse a port that another process listens on.

    Raises:
        StateError: naming it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise StateError(
                f"cannot listen on {host} port {port}: {error.strerror}; choose another "
                "port, or stop what uses it"
            ) from None


def check_own(home: Path, state: Path) -> None:
    """Refuse a coordinator's folder in which others have a hand, or a changed audit log.

    Raises:
        StateError: naming the line of the log.
        TrustError: for a link where the server writes, or for what everybody may change.
    """
    names = (place.LOCK, place.SECRET, place.TOKEN, place.SERVER, place.DATABASE)
    audit = state / place.AUDIT
    inside = [state / name for name in (*names, place.NODES, place.SKEW)]
    fixed = [state, audit, audit.with_suffix(".head"), *inside]
    own.check_links(fixed)
    own.check_doors([home, *(home / n for n in (CONFIG, NODES, REMOVED)), *fixed])
    own.check_log(audit)


def check_database(path: Path) -> None:
    """Refuse a database that another process holds, or that is none.

    Raises:
        StateError: saying so.
    """
    if not path.is_file():
        return
    try:
        with sqlite3.connect(path, timeout=1.0) as trial:
            trial.execute("BEGIN IMMEDIATE")
            trial.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        raise StateError(
            f"database {path} cannot be used: {error}; another process holds it, or the "
            "disk is full: stop that process or free some space"
        ) from None
    except sqlite3.DatabaseError as error:
        raise StateError(
            f"{path} is damaged: {error}; move it away, the server makes a new one and "
            "every run goes on from its own files"
        ) from None
