"""Where the coordinator's runs lie, and how each of them stands.

```text
<state>/runs/<run>/launch/…       what the run is (server.launch)
<state>/runs/<run>/registry.json  its rounds (server.registry)
<state>/runs/<run>/state.json     how it stands: this module
```
"""

import json
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
    by_age = sorted(found, key=lambda path: path.stat().st_mtime)
    return [path.parent.parent.name for path in by_age]


def read(folder: Path) -> RunState:
    """How the run of `folder` stands.

    Raises:
        StateError: if that cannot be read.
    """
    path = folder / "state.json"
    try:
        return RunState(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        raise StateError(f"{path} is missing or damaged; start the run again") from None


def end(
    folder: Path, engine: str, state: str, *, why: str = "", code: str = ""
) -> None:
    """Keep how an attempt ended, unless the run was stopped or tried anew meanwhile."""
    now = read(folder)
    if now.state == RUNNING and now.engine == engine:
        write(folder, state, why=why, code=code, engine=engine, attempts=now.attempts)


def write(
    folder: Path,
    state: str,
    *,
    why: str = "",
    code: str = "",
    engine: str = "",
    attempts: int = 0,
) -> None:
    """Keep how the run of `folder` stands from now on."""
    now = RunState(
        state=state,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        why=why,
        code=code,
        engine=engine,
        attempts=attempts,
    )
    write_text(folder / "state.json", json.dumps(asdict(now), indent=2))
