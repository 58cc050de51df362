"""One command that is the coordinator's server: keeps the SuperLink, plays the runs.

What it keeps in mind is on disk (`server.runs`), so that a server that was killed, or
whose SuperLink or player was, takes up every run from its last complete round.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from server import flower, place, runs
from server.flower import Control
from server.kits import Kits
from server.startup import check_database, check_own, check_port
from vgmedgen.errors import StateError, UnreachableError, VGMedGenError
from vgmedgen.process import logs
from vgmedgen.process.children import Child, module
from vgmedgen.process.environment import OFFLINE, keep_out
from vgmedgen.process.lock import only_one
from vgmedgen.trust.journal import Journal

log = logging.getLogger(__name__)

UP_S = 90.0  # a SuperLink has this long to answer after its start
TICK_S = 0.5
SYNC_S = 3.0  # how often new sites and new runs are looked for
MOST_ATTEMPTS = 25  # a run whose player ended this often without a round is given up
LONGEST_PAUSE_S = 10.0  # between two tries of what does not work
ROLE = "server.process"


def serve(
    kits: Kits,
    *,
    port: int | None = None,
    listen: str | None = None,
    page: bool = False,
    as_json: bool = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        kits: of this coordinator.
        port: of the public listener, instead of the kits'.
        listen: address of the public listener, instead of the kits'.
        page: whether to serve the status page on loopback.
        as_json: log JSON lines.

    Raises:
        StateError: if a port is in use, the database locked, a server runs already, or
            the audit log is not as it was written.
        TrustError: if a key or certificate cannot be used, for a link where the server
            writes, or for what everybody may change.
    """
    logs.keeper(as_json=as_json)
    keep_out(kits.folder)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    check_own(kits.home, kits.state)
    with only_one(kits.state / place.LOCK, "a coordinator's server"):
        server = Server(
            kits,
            port=port or kits.config.port,
            listen=listen or kits.config.listen,
            page=page,
        )
        server.run(stop)


class Server:
    """The SuperLink, the player of the run that is on, and what waits."""

    def __init__(self, kits: Kits, *, port: int, listen: str, page: bool) -> None:
        self._kits = kits
        self._port, self._listen = port, listen
        self._page = kits.config.page_port if page else 0
        self._admin = kits.config.admin_port
        self._journal = Journal(kits.state / place.AUDIT)
        self._player: Child | None = None
        self._playing = ""  # Flower's id of the run that is on
        self._synced = 0.0
        self._taken_up = False  # whether what an earlier server left was looked through
        self._trouble = Trouble()
        self._unreadable: set[str] = set()  # runs that were told of

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set."""
        for line in self._kits.warnings():
            log.warning("%s", line)
        self._check_free()
        place.prepare(self._kits.state)
        place.say(self._kits.state, self._ports())
        link = Child(
            "superlink",
            module(ROLE, "superlink", str(self._kits.folder.resolve())),
            OFFLINE
            | {
                "VGMEDGEN_LISTEN": f"{self._listen}:{self._port}",
                "VGMEDGEN_ADMIN_PORT": str(self._admin),
                "FLWR_HOME": str(self._kits.state / "flower"),
            },
        )
        control = Control(self._admin, place.token(self._kits.state))
        self._journal.add("start", pid=self._ports().pid)
        page = self._serve_page(control)
        try:
            link.tend()
            self._wait_up(control, link, stop)
            self._trouble.attempt(lambda: self._take_up(control))
            log.info(
                "hospitals reach this server at %s:%d; stop it with Ctrl-C or SIGTERM",
                *(self._kits.config.host, self._port),
            )
            starting = Trouble()
            while not stop.wait(TICK_S):
                starting.attempt(link.tend)
                self._trouble.attempt(lambda: self._turn(control))
        finally:
            log.info("stopping")
            page()
            if self._player is not None:
                self._player.stop()
            link.stop()
            control.close()
            self._journal.add("stop", pid=self._ports().pid)

    def _turn(self, control: Control) -> None:
        if not self._taken_up:
            self._take_up(control)
        if self._player is not None and not self._player.running:
            self._player_ended(control)
        now = time.monotonic()
        if now - self._synced > SYNC_S:
            self._follow_runs(control)
            sync(self._kits, control)
            self._start_queued(control)
            self._synced = now  # not before: what failed is not over
        if self._player is None:
            task = flower.acquire(self._admin, place.secret(self._kits.state))
            if task is not None:
                self._start_player(task, control)

    def _runs(self) -> dict[str, runs.RunState]:
        """How every run stands; one that cannot be read is told of once and left out."""
        found = {}
        for name in runs.runs_of(self._kits.state):
            try:
                found[name] = runs.read(self._folder(name))
                self._unreadable.discard(name)
            except StateError as error:
                if name not in self._unreadable:
                    log.warning(
                        "run %s is left alone: %s [%s]", name, error, error.code
                    )
                self._unreadable.add(name)
        return found

    def _folder(self, name: str) -> Path:
        return runs.folder_of(self._kits.state, name)

    def _follow_runs(self, control: Control) -> None:
        """Stop what was stopped, and play again what Flower gave up."""
        for name, now in self._runs().items():
            if now.state == runs.STOPPED and now.engine == self._playing != "":
                control.stop(now.engine)
                if self._player is not None:
                    self._player.stop()
            waits = now.state == runs.RUNNING and now.engine != self._playing
            if waits and (not now.engine or control.ended(now.engine) is not None):
                requeue(self._folder(name), now)

    def _start_queued(self, control: Control) -> None:
        """Have Flower start what waits."""
        for name, now in self._runs().items():
            if now.state == runs.QUEUED and self._player is None:
                engine = control.start(name)
                attempts = now.attempts + 1
                known = False
                try:
                    new = runs.made(runs.RUNNING, engine=engine, attempts=attempts)
                    known = runs.swap(self._folder(name), now, new)
                finally:
                    if not known:  # stopped meanwhile, or it cannot be written down
                        control.stop(engine)
                if known:
                    log.info("run %s starts (attempt %d)", name, attempts)
                return

    def _start_player(self, task: flower.Task, control: Control) -> None:
        """Play a task that a run waits for; any other was stopped, or is nobody's."""
        if runs.waiting_for(self._kits.state, task.engine) is None:
            control.stop(task.engine)
            log.info("a task that no run waits for is stopped")
            return
        player = Child(
            "run",
            module(ROLE, "player", str(self._kits.folder.resolve())),
            OFFLINE
            | {
                "VGMEDGEN_TASK": task.token,
                "VGMEDGEN_ENGINE": task.engine,
                "VGMEDGEN_ADMIN_PORT": str(self._admin),
                "FLWR_HOME": str(self._kits.state / "flower"),
            },
        )
        try:
            player.start()
        except OSError:
            control.stop(task.engine)  # its run is played again
            raise
        self._playing, self._player = task.engine, player

    def _player_ended(self, control: Control) -> None:
        engine = self._playing
        if control.ended(engine) is None:
            control.stop(engine)
        for name, now in self._runs().items():
            if now.engine != engine:
                continue
            if now.state == runs.RUNNING:
                requeue(self._folder(name), now)
            else:
                why = f", {now.why}"[: 400 * bool(now.why)]
                log.info("run %s: %s%s", name, now.state, why)
        # only now: whatever failed above is tried again at the next turn
        self._playing, self._player = "", None

    def _take_up(self, control: Control) -> None:
        """What an earlier server left: its runs go on, from their last rounds."""
        sync(self._kits, control)
        for name, now in self._runs().items():
            if now.state == runs.RUNNING:
                if now.engine and control.ended(now.engine) is None:
                    control.stop(now.engine)
                requeue(self._folder(name), now)
        self._taken_up = True

    def _wait_up(self, control: Control, link: Child, stop: threading.Event) -> None:
        end = time.monotonic() + UP_S
        while not stop.wait(TICK_S):
            try:
                control.nodes()
            except UnreachableError:
                if not link.running or time.monotonic() > end:
                    told = link.lines[-1] if link.lines else "it said nothing"
                    link.stop()
                    raise StateError(f"the SuperLink does not start: {told}") from None
            else:
                return

    def _check_free(self) -> None:
        wanted = [(self._listen, self._port), ("127.0.0.1", self._admin)]
        if self._page:
            wanted.append(("127.0.0.1", self._page))
        for host, port in wanted:
            check_port(host, port)
        check_database(self._kits.state / place.DATABASE)

    def _ports(self) -> place.Ports:
        import os  # noqa: PLC0415

        return place.Ports(
            public=self._port, admin=self._admin, page=self._page, pid=os.getpid()
        )

    def _serve_page(self, control: Control) -> Callable[[], None]:
        if not self._page:
            return lambda: None
        from server.page import app  # noqa: PLC0415 - only where it is asked for
        from server.status import gather  # noqa: PLC0415

        log.info("status page: http://127.0.0.1:%d", self._page)
        return flower.in_background(
            app(lambda: gather(self._kits, control)), self._page
        )


class Trouble:
    """What does not work: told once, tried again at ever longer intervals."""

    def __init__(self) -> None:
        self._told = ""
        self._pause = TICK_S
        self._due = 0.0  # monotonic

    def attempt(self, work: Callable[[], None]) -> None:
        """Do `work`, unless it failed a moment ago; what it raises ends no server."""
        if time.monotonic() < self._due:
            return
        try:
            work()
        except VGMedGenError as error:
            self._failed(f"{error} [{error.code}]")
        except OSError as error:
            self._failed(f"{error.strerror or error} [{StateError.code}]")
        else:
            if self._told:
                log.info("what did not work does again")
            self._told, self._pause = "", TICK_S

    def _failed(self, told: str) -> None:
        if told != self._told:
            log.warning("%s; the server goes on and tries again", told)
        self._told = told
        self._due = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)


def sync(kits: Kits, control: Control) -> None:
    """Make the SuperLink's nodes those of the kits.

    Raises:
        StateError: if the kits' nodes cannot be read, or a key is refused; every other
            node is as the kits say by then.
        UnreachableError: if the SuperLink does not answer.
    """
    wanted = kits.nodes()
    known = {node.public_key: node for node in control.nodes()}
    for key in known.keys() - set(wanted.values()):
        control.unregister(known[key].node_id)
        log.info("a node whose key is no longer among the kits is shut out")
    refused = None
    for site, key in sorted(wanted.items()):
        if key in known:
            continue
        try:
            control.register(site, key)
            log.info("%s may join", site)
        except StateError as error:
            refused = refused or error
    if refused is not None:
        raise refused


def requeue(folder: Path, now: runs.RunState) -> None:
    """Have a run played again, unless it was stopped, or that was tried in vain."""
    attempts = 0 if got_on(folder, now) else now.attempts
    new = runs.made(runs.QUEUED, attempts=attempts)
    if attempts >= MOST_ATTEMPTS:
        why = f"its player ended {now.attempts} times; the log says why"
        new = runs.made(runs.FAILED, why=why, code="VG00", attempts=now.attempts)
    if runs.swap(folder, now, new):
        told = new.why or "it goes on from its last round"
        log.warning("run %s was cut off; %s", folder.name, told)


def got_on(folder: Path, now: runs.RunState) -> bool:
    """Whether a round was completed since the run was last started."""
    began = datetime.fromisoformat(now.at).timestamp()
    records = (folder / "rounds").glob("*.json")
    return any(path.stat().st_mtime > began for path in records)
