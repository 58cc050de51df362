"""Examines what lies in a site's folder, without changing any of it."""

import os
import re
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path

from client.heartbeats import FILE as HEARD
from client.heartbeats import heard
from client.preflight.finding import Caution
from client.preflight.place import Place
from vgmedgen.errors import PolicyError, StateError, TrustError, UnreachableError
from vgmedgen.process.lock import is_held
from vgmedgen.site.config import FILE, load_config
from vgmedgen.trust import own
from vgmedgen.trust.journal import Journal

NODE = "node"
LOCK = "lock"  # below NODE; a running node holds it
COORDINATOR_KEY = "coordinator.pub"
AUDIT = "audit.jsonl"
LEDGER = "ledger.sqlite"
STATE = (NODE, "approvals", "turns", "dry-run", "cache", "runs", "releases")
# Where no link may stand: the large ones (cache, runs, releases) may lie on another disk.
FIXED = (
    *(NODE, f"{NODE}/{LOCK}", "approvals", "turns", "dry-run"),
    *(AUDIT, "audit.head", LEDGER, "ledger.head", FILE),
)
_OTHERS = 0o077
_WAIT_S = 2.0  # for a ledger that is being written


def site_yaml(place: Place) -> str | Caution:
    """site.yaml is valid and names a site, data and a coordinator."""
    path = place.folder / FILE
    config = load_config(path)
    own.check_doors([path])
    told = f"valid; this is site {config.name}"
    if own.group_may_change([path]):
        todo = f"chmod g-w {path}, if they are not its writers"
        return Caution(f"{told}; others of its group may change it", todo)
    return told


def policy(place: Place) -> str | Caution:
    """The policy is valid and serves the coordinator whose kit this is."""
    allowed = place.policy.coordinators
    if not allowed:
        raise PolicyError(
            "policy.coordinators lists no key, so no node may serve; copy the 64 digits "
            f"of {COORDINATOR_KEY} into it"
        )
    told = f"valid; {len(allowed)} coordinator(s), approval {place.policy.approval}"
    path = place.folder / COORDINATOR_KEY
    if not path.is_file():
        return Caution(
            f"{told}; there is no {COORDINATOR_KEY} to compare them with",
            "copy it from the kit, and compare its digits with the coordinator's",
        )
    key = path.read_bytes()[:200].decode(errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise TrustError(
            f"{COORDINATOR_KEY} does not hold a signing key; copy it from the kit again"
        )
    if key not in allowed:
        raise TrustError(
            f"policy.coordinators does not list the key of {COORDINATOR_KEY} "
            f"({key[:16]}…); ask the coordinator by another way which key is its own"
        )
    return told


def folder(place: Place) -> str | Caution:
    """The folder and what lies in it can be written, and others cannot look into it."""
    home = place.folder
    if not home.is_dir():
        raise StateError(f"there is no folder {home}; name the folder of site.yaml")
    refuse_foreign(home)
    for name in (".", *STATE):
        if (home / name).exists():
            _write_into(home / name)
    if (mode := _mode(home)) & _OTHERS:
        return Caution(
            f"writable; others on this machine can look into it (mode {mode:03o})",
            f"chmod 700 {home}",
        )
    return "writable, and closed to others"


def refuse_foreign(home: Path) -> None:
    """Refuse a folder in which others have a hand; before anything is written there.

    Raises:
        StateError: if others can look into the running node's own folder.
        TrustError: for a link, or for what everybody may change.
    """
    fixed = [home / name for name in FIXED]
    own.check_links(fixed)
    own.check_doors([home, *fixed])
    node = home / NODE
    if node.exists() and (mode := _mode(node)) & _OTHERS:
        raise StateError(
            f"others can look into {node} (mode {mode:03o}), which holds the running "
            f"node's secret; chmod 700 {node}, then start the node anew"
        )


def ledger(place: Place) -> str:
    """The ledger can be written and every row is as it was written."""
    path = place.folder / LEDGER
    from client import history  # noqa: PLC0415 - brings Flower
    from vgmedgen.privacy import facts  # noqa: PLC0415 - `start` does not need it
    from vgmedgen.privacy.ledger import Ledger  # noqa: PLC0415

    begun = path.exists() or path.with_suffix(".head").exists()
    trained = next((place.folder / "runs").glob("*/round-*"), None)
    if not begun and trained is None:
        history.check(place.folder, ())
        return "none yet; the first round begins it"
    book = Ledger.read(place.folder, load_config(place.folder / FILE).name)
    rows = book.rows()
    facts.alive(rows, path)
    history.check(place.folder, facts.rounds(rows))
    _lockable(path)
    return f"intact; its head is {rows[-1].hash[:16]}"


def audit_log(place: Place) -> str | Caution:
    """Every line of the audit log is as it was written."""
    try:
        head = Journal(place.folder / AUDIT).verify()
    except StateError as error:
        # a crash between a line and its head is no tampering: the log mends it itself
        told, _, rest = str(error).partition("; ")
        if "the next start" not in str(error):
            raise
        return Caution(told, rest or "start the node")
    if not head.count:
        return "none yet; the first message begins it"
    return f"intact; {head.count} lines, its head is {head.hash[:16]}"


def approvals(place: Place) -> str | Caution:
    """Runs that wait for the data officer, and whether the files can be read."""
    from client.approvals import WAITING, Approvals  # noqa: PLC0415 - brings Flower

    asked = Approvals(place.folder)
    waiting = [run for run in asked.runs() if asked.of(run).state == WAITING]
    if not waiting:
        return "no run waits for one"
    more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
    return Caution(
        f"run {waiting[0]}{more} waits for one", "vgmedgen-client approve RUN"
    )


def node(place: Place) -> str | Caution:
    """Whether a node runs on this folder and is heard; one to start is the only one."""
    path = place.folder / NODE / LOCK
    if not path.is_file() or not is_held(path):
        return "none runs on this folder"
    holder = path.read_text(encoding="utf-8").strip() or "unknown"
    if place.quick and holder != str(os.getpid()):
        raise StateError(
            f"a node runs on this folder already (process {holder}); stop that one first"
        )
    told = f"runs (process {holder})"
    last = heard(place.folder / NODE)
    if last is None:
        return Caution(
            f"{told}; nothing tells whether the coordinator hears it",
            f"free some space, or look why {NODE}/{HEARD} cannot be read or written",
        )
    if last.well:
        if not last.at:
            return f"{told}; it was started {last.unheard_s:.0f} s ago and is joining"
        return f"{told}; the coordinator heard it {last.unheard_s:.0f} s ago"
    when = f"since {last.at}" if last.at else f"in its {last.unheard_s:.0f} s"
    raise UnreachableError(
        f"{told}, but the coordinator has not heard it {when}; what is wrong on the way "
        "is below, and the node's log says more; it goes on trying by itself"
    )


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _write_into(place: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=place) as stream:
            stream.write(b"x" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise StateError(
            f"cannot write into {place}: {error.strerror or error}; free some space, or "
            "give the folder to the user that runs the node"
        ) from None


def _lockable(path: Path) -> None:
    """Begin to write the ledger, and take it back."""
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_S)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.rollback()
    except sqlite3.Error as error:
        raise StateError(
            f"{path} cannot be written: {error}; stop what holds it, or give the file to "
            "the user that runs the node"
        ) from None
