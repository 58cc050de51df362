"""The processes that the coordinator's server keeps: the SuperLink, and one per run.

Started by `server.supervisor` as `python -m server.process ROLE KITS`; they end when it
does. Secrets come through files and the environment, never through the command line.
"""

import asyncio
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path

from server import place
from server.disk import Disk
from server.kits import NODES, Kits
from vgmedgen.errors import StateError, VGMedGenError
from vgmedgen.files import write_text
from vgmedgen.process import environment, logs
from vgmedgen.process.children import follow_keeper
from vgmedgen.trust.nodekeys import MOST_SKEW_S

log = logging.getLogger(__name__)

LISTEN = "VGMEDGEN_LISTEN"  # environment: host:port of the public listener
ADMIN = "VGMEDGEN_ADMIN_PORT"
TASK = "VGMEDGEN_TASK"  # environment: token of the run that a player took on
ENGINE = "VGMEDGEN_ENGINE"  # environment: Flower's id of that run

WORTH_S = 30.0  # a clock that is this far off is worth a word
NOTE_S = 5.0  # how often what was seen is written down


def superlink(kits: Kits) -> None:
    """Serve the SuperLink until told to stop."""
    from server import flower  # noqa: PLC0415 - what a run's player does not need

    host, _, port = os.environ[LISTEN].rpartition(":")
    link = flower.Link(
        host=host,
        port=int(port),
        admin_port=int(os.environ[ADMIN]),
        ca=kits.home / "ca.crt",
        certificate=kits.home / "server.crt",
        key=kits.home / "server.key",
        database=kits.state / place.DATABASE,
        secret=kits.state / place.SECRET,
        token=place.token(kits.state),
    )
    keys = Keys(kits)
    flower.quiet(keys.site_of)
    skews = flower.Skews(
        worth_s=WORTH_S, registered=keys, ahead=kits.state / place.AHEAD
    )
    threading.Thread(target=_note, args=(kits, skews), daemon=True).start()
    asyncio.run(
        flower.serve(link, skews=skews, refused=Strangers(), well=Disk(kits.state))
    )


class Keys:
    """Every registered public key, read again when nodes.json was written."""

    def __init__(self, kits: Kits) -> None:
        self._kits = kits
        self._seen: tuple[int, int, int] | None = None
        self._keys: frozenset[str] = frozenset()
        self._sites: dict[str, str] = {}  # by key

    def site_of(self, key: str) -> str:
        """Name of the site that a key, hex, is registered for; empty for nobody."""
        self()
        return self._sites.get(key, "")

    def __call__(self) -> frozenset[str]:
        """The keys; those known so far while the file cannot be read."""
        try:
            told = (self._kits.home / NODES).stat()
        except FileNotFoundError:
            return frozenset()  # nobody was registered yet
        except OSError:
            return self._keys
        seen = (told.st_mtime_ns, told.st_ino, told.st_size)
        if seen != self._seen:
            self._seen = seen
            try:
                self._sites = {key: s for s, key in self._kits.nodes().items()}
                self._keys = frozenset(self._sites)
            except StateError as error:
                log.warning("%s", error)
        return self._keys


class Strangers:
    """Says who asked the public port for what it does not answer, now and then."""

    def __init__(self, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._last = -every_s
        self._count = 0

    def __call__(self, peer: str, path: str, status: int) -> None:
        """Hear of one refused request."""
        self._count += 1
        now = time.monotonic()
        if now - self._last >= self._every_s:
            log.warning(
                "refused %d requests on the public port, the last from %s for %r (%d)",
                *(self._count, peer, path, status),
            )
            self._last, self._count = now, 0


def _note(kits: Kits, skews: "flower.Skews") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Write down whose clock is off, and say it once."""
    told: dict[str, float] = {}
    while True:
        time.sleep(NOTE_S)
        try:
            sites = {key: site for site, key in kits.nodes().items()}
            found = {sites[k]: s for k, s in list(skews.found.items()) if k in sites}
            if found != told:
                write_text(kits.state / place.SKEW, json.dumps(found))
        except (OSError, StateError):
            continue  # whoever reads nodes.json for a request says so
        for site, ahead in found.items():
            if abs(ahead - told.get(site, 0.0)) > WORTH_S:
                log.warning("%s", skew_line(site, ahead))
        told = found


def skew_line(site: str, ahead: float) -> str:
    """One line about a clock that is off."""
    way = "ahead of" if ahead > 0 else "behind"
    off = abs(ahead) >= MOST_SKEW_S
    what = "its requests are refused" if off else "it still gets in"
    return (
        f"the clock of {site} is {abs(ahead):.0f} s {way} the coordinator's; {what} "
        f"(limit {MOST_SKEW_S:.0f} s): have its clock set by NTP"
    )


def player(kits: Kits) -> None:
    """Play one run that was acquired, and write down how it ended."""
    from server import flower, runs  # noqa: PLC0415 - what a SuperLink does not need
    from server.app import RUN_FILE, build, publish_release  # noqa: PLC0415

    flower.quiet()
    engine = os.environ[ENGINE]
    folder = runs.waiting_for(kits.state, engine)
    if folder is None:
        log.error("no run of this coordinator waits for what it was to play")
        return

    def config_of(run: str) -> dict[str, str]:
        if run != folder.name:
            raise StateError(f"run '{run[:64]}' is not the one that was to be played")
        return {RUN_FILE: str(runs.launch_file(folder))}

    try:
        app = build(publish_release, kits.signing_key())
        flower.play(int(os.environ[ADMIN]), os.environ[TASK], app, config_of)
    except VGMedGenError as error:
        log.error("%s [%s]", error, error.code)  # noqa: TRY400 - one line is all there is
        runs.end(folder, engine, runs.FAILED, why=str(error), code=error.code)
    else:
        runs.end(folder, engine, runs.FINISHED)


def main() -> None:
    """Be what the command line names."""
    environment.settle()
    logs.child()
    follow_keeper()
    role, folder = sys.argv[1:]
    kits = Kits.open(Path(folder))
    {"superlink": superlink, "player": player}[role](kits)


if __name__ == "__main__":
    main()
