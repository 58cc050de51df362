"""One command that is a hospital's node: keeps the SuperNode and the runner.

Both are needed: a SuperNode without its runner looks online and never answers. So one
process owns them, restarts what ends, and stops both.
"""

import logging
import os
import secrets
import signal
import socket
import threading
import time
from functools import partial
from pathlib import Path

from client.heartbeats import Heartbeats
from client.node import PORT, SECRET, TAKEN
from vgmedgen.errors import ConfigError, StateError
from vgmedgen.process import logs
from vgmedgen.process.children import Child, module
from vgmedgen.process.environment import OFFLINE, keep_out
from vgmedgen.process.lock import only_one
from vgmedgen.site.config import FILE, SiteConfig, load_config
from vgmedgen.trust.files import write_secret
from vgmedgen.trust.journal import Journal

log = logging.getLogger(__name__)

NODE = "node"  # folder of the running node, below the site's
TICK_S = 0.5
KEY_TAKEN_S = 20.0  # between tries while the coordinator holds our key for online
KEY_TAKEN = "[code: 2004]"
ROLE = "client.node"
COORDINATORS = frozenset({"registered", "clock"})  # findings that mend themselves here


def serve(folder: Path, *, as_json: bool = False) -> None:
    """Serve a site until SIGTERM or Ctrl-C.

    Args:
        folder: of the site.
        as_json: log JSON lines.

    Raises:
        ConfigError: if site.yaml is no valid one, or names no coordinator.
        StateError: if the node runs already, its folder cannot be written, or ledger,
            audit log or approvals are not as they were written.
        TrustError: if a key or certificate cannot be used, for a link where the node
            writes, or for what everybody may change.
    """
    from client.preflight.folder import refuse_foreign  # noqa: PLC0415

    logs.keeper(as_json=as_json)
    folder = folder.resolve()
    keep_out(folder)
    refuse_foreign(folder)
    config = load_config(folder / FILE)
    check_deployable(config)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    place = folder / NODE
    with only_one(place / "lock", f"the node of {config.name}"):
        prepare(place)
        _refuse_own_faults(folder)
        journal = Journal(folder / "audit.jsonl")
        journal.add("start", site=config.name, pid=os.getpid())
        log.info(
            "%s serves runs of %s; stop it with Ctrl-C or SIGTERM",
            *(config.name, config.coordinator.address),
        )
        try:
            keep(folder, stop)
        finally:
            journal.add("stop", site=config.name, pid=os.getpid())


def keep(folder: Path, stop: threading.Event) -> None:
    """Keep a site's SuperNode and runner until `stop` is set."""
    from client.connection import address_of, explain_exit  # noqa: PLC0415
    from client.proxy import proxy_of  # noqa: PLC0415

    host, _ = address_of(load_config(folder / FILE).coordinator.address)
    env = OFFLINE | {
        PORT: str(free_port()),
        "FLWR_HOME": str(folder / NODE / "flower"),
    }
    stuck, heartbeats = Stuck(), Heartbeats(folder / NODE)

    def node_says(line: str) -> None:
        stuck.node_says(line)
        heartbeats.node_says(line)

    node = Child(
        "node",
        module(ROLE, "supernode", str(folder)),
        env,
        explain=partial(explain_exit, proxy=proxy_of(host)),
        pause_of=pause_of,
        hear=node_says,
    )
    runner = Child(
        "runner", module(ROLE, "runner", str(folder)), env, hear=stuck.runner_says
    )
    try:
        while not stop.wait(TICK_S):
            if not runner.running:
                stuck.runner_started()
            if not node.running:
                heartbeats.started()
            if stuck.found():
                stuck.reset()
                node.restart("it waits for an answer that nobody is working on")
            if heartbeats.missed():
                stuck.reset()
                heartbeats.give_longer()
                node.restart(
                    "the coordinator has confirmed no heartbeat of it for "
                    f"{heartbeats.unheard_s:.0f} s"
                )
            for child in (node, runner):
                child.tend()
    finally:
        log.info("stopping")
        # a node that is told to stop says goodbye, which lets its key in again at once
        for child in (runner, node):
            child.stop()


def check_deployable(config: SiteConfig) -> None:
    """Refuse to serve strangers.

    Raises:
        ConfigError: if site.yaml names no coordinator, or none whose runs are trusted.
    """
    if not config.coordinator.address:
        raise ConfigError(
            "site.yaml names no coordinator.address, such as fl.example.org:8443; the "
            "kit of the coordinator has it"
        )
    if not config.policy.coordinators:
        raise ConfigError(
            "site.yaml lists no key under policy.coordinators, so anybody's runs would "
            "be served; copy the 64 digits from coordinator.pub"
        )


def prepare(place: Path) -> None:
    """Make the node's folder, private, and the secret of this start.

    Raises:
        StateError: if it cannot be written.
    """
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        (place / SECRET).unlink(missing_ok=True)
    except OSError as error:
        raise StateError(f"cannot write {place}: {error.strerror or error}") from None
    write_secret(place / SECRET, secrets.token_hex(32).encode())


class Stuck:
    """Finds a SuperNode that waits for an answer which nobody is working on.

    A runner that dies between taking a task and reading its message leaves the SuperNode
    waiting for ever, online and silent. It says what it receives and sends, the runner
    says what it takes; from that this sees it.
    """

    def __init__(self, after_s: float = 100.0) -> None:
        self._after_s = after_s  # above the minute after which Flower answers itself
        self._waits = self._works = False
        self._since = time.monotonic()

    def node_says(self, line: str) -> None:
        """A line of the SuperNode."""
        if "Receiving:" in line or "Sending:" in line:
            self._waits = "Receiving:" in line
            self._since = time.monotonic()

    def runner_says(self, line: str) -> None:
        """A line of the runner."""
        if TAKEN in line:
            self._works = True

    def runner_started(self) -> None:
        """A new runner has taken nothing yet."""
        self._works = False
        self._since = time.monotonic()

    def found(self) -> bool:
        """Whether the SuperNode waits in vain."""
        waited = time.monotonic() - self._since
        return self._waits and not self._works and waited > self._after_s

    def reset(self) -> None:
        """The SuperNode is a new one."""
        self._waits = False


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        number: int = trial.getsockname()[1]
        return number


def pause_of(told: str, pause: float) -> float:
    """Seconds until a SuperNode is started again.

    For about a minute after a crash the coordinator holds its key for online.
    """
    return KEY_TAKEN_S if KEY_TAKEN in told else pause


def _refuse_own_faults(folder: Path) -> None:
    """Stop at what no restart would mend; what the coordinator may mend is waited for."""
    from client.preflight import examine  # noqa: PLC0415

    waits = False
    for finding in examine(folder, quick=True):
        if finding.ok or finding.warning:
            continue
        if not (finding.unreachable or finding.name in COORDINATORS):
            raise ConfigError(f"{finding.name}: {finding.told}; {finding.todo}")
        if not waits:  # what comes after it may only fail because it has
            log.warning("%s: %s; %s", finding.name, finding.told, finding.todo)
            log.warning("the node goes on trying until that is mended")
        waits = True
