"""Where the coordinator's runs lie, and how each of them stands.

```text
<state>/runs/<run>/launch/…       what the run is (server.launch)
<state>/runs/<run>/registry.json  its rounds (server.registry)
<state>/runs/<run>/state.json     how it stands: this module
<state>/runs/<run>/state.lock     held while that is changed
```

A run is there once its launch file is, which is written last. Commands, the server and
its players change how a run stands at the same time: each change is made under the lock,
by what is on disk then.
"""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from server.launch import FILE, FOLDER
from vgmedgen.errors import StateError
from vgmedgen.files import write_text

QUEUED = "queued"  # waits for the executor
RUNNING = "running"
FINISHED = "finished"  # its release is published
FAILED = "failed"  # refused for a reason that a restart would not mend
STOPPED = "stopped"  # by the coordinator; `run` goes on from the last complete round
ENDED = (FINISHED, FAILED, STOPPED)
STATES = (QUEUED, RUNNING, *ENDED)
_MOST = 2**64  # of Flower's ids


@dataclass(frozen=True, kw_only=True)
class RunState:
    """How one run stands."""

    state: str  # one of the words above
    at: str  # since when, ISO 8601, UTC
    why: str = ""  # one line, where it failed
    code: str = ""  # of that line
    engine: str = ""  # Flower's own id of the latest attempt
    attempts: int = 0  # how often the engine was asked to play it


def folder_of(state: Path, run: str) -> Path:
    """The folder of a run."""
    return state / "runs" / run


def state_of(folder: Path) -> Path:
    """The state folder that the run of `folder` lies in."""
    return folder.parent.parent


def launch_file(folder: Path) -> Path:
    """What says all of the run of `folder`."""
    return folder / FOLDER / FILE


def runs_of(state: Path) -> list[str]:
    """Every run, oldest first."""
    found = (state / "runs").glob(f"*/{FOLDER}/{FILE}")
    by_age = sorted(found, key=_age)
    return [path.parent.parent.name for path in by_age]


def read(folder: Path) -> RunState:
    """How the run of `folder` stands.

    Raises:
        StateError: if that cannot be read.
    """
    path = folder / "state.json"
    try:
        found = RunState(**json.loads(path.read_text(encoding="utf-8")))
        if _sound(found):
            return found
    except (OSError, ValueError, TypeError, RecursionError):
        pass
    raise StateError(f"{path} is missing or damaged; start the run again")


def waiting_for(state: Path, engine: str) -> Path | None:
    """The folder of the run that is on, and played under Flower's id `engine`."""
    for run in runs_of(state):
        with suppress(StateError):
            now = read(folder_of(state, run))
            if (now.state, now.engine) == (RUNNING, engine):
                return folder_of(state, run)
    return None


def change(folder: Path, to: Callable[[RunState], RunState | None]) -> RunState | None:
    """Change how a run stands by how it stands, with nobody in between.

    Args:
        folder: of the run.
        to: what shall be kept, by what is on disk; None leaves it.

    Returns:
        What was kept; None where nothing was.

    Raises:
        StateError: if how the run stands cannot be read or written.
    """
    with _alone(folder):
        kept = to(read(folder))
        if kept is not None:
            _put(folder, kept)
    return kept


def swap(folder: Path, old: RunState, new: RunState) -> bool:
    """Keep `new`, unless the run no longer stands as `old`; whether it was kept.

    Raises:
        StateError: if how the run stands cannot be read or written.
    """
    kept = change(folder, lambda now: new if now == old else None)
    return kept is not None


def end(
    folder: Path, engine: str, state: str, *, why: str = "", code: str = ""
) -> None:
    """Keep how an attempt ended, unless the run was stopped or tried anew meanwhile."""

    def ended(now: RunState) -> RunState | None:
        if now.state != RUNNING or now.engine != engine:
            return None
        return made(state, why=why, code=code, engine=engine, attempts=now.attempts)

    change(folder, ended)


def write(
    folder: Path,
    state: str,
    *,
    why: str = "",
    code: str = "",
    engine: str = "",
    attempts: int = 0,
) -> None:
    """Keep how the run of `folder` stands from now on, however it stood."""
    kept = made(state, why=why, code=code, engine=engine, attempts=attempts)
    with _alone(folder):
        _put(folder, kept)


def made(
    state: str, *, why: str = "", code: str = "", engine: str = "", attempts: int = 0
) -> RunState:
    """How a run stands from this moment."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return RunState(
        state=state, at=at, why=why, code=code, engine=engine, attempts=attempts
    )


def _put(folder: Path, now: RunState) -> None:
    write_text(folder / "state.json", json.dumps(asdict(now), indent=2))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a run; the kernel lets go of it however a process ends."""
    path = folder / "state.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("a", encoding="utf-8")
    except OSError as error:
        raise StateError(
            f"cannot write {path}: {error.strerror or error}; free some space or mend "
            "its permissions, then start again"
        ) from None
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _sound(now: RunState) -> bool:
    """Whether every fact is of its kind: people open these files too."""
    words = (now.state, now.at, now.why, now.code, now.engine)
    return (
        all(isinstance(word, str) for word in words)
        and now.state in STATES
        and (not now.engine or (now.engine.isdecimal() and int(now.engine) < _MOST))
        and isinstance(now.attempts, int)
        and now.attempts >= 0
    )


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it was moved away this moment
        return 0.0
