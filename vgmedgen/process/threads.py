"""How many threads a sum is shared by, and how they wait for one another.

torch counts the cores of the machine. A container with a share of them, or a process
held to a few, would start more threads than can run, and each waits for the slowest. And
they wait by spinning: beside other work, that takes the cores from those who have
something to do (a step of the visual prior took eleven times as long on two busy cores).

Read by the library of threads when torch loads it, so it is set before.
"""

import os
from collections.abc import Iterator, Mapping, MutableMapping, Set
from pathlib import Path

WAIT = "OMP_WAIT_POLICY"
PASSIVE = "PASSIVE"
THREADS = "OMP_NUM_THREADS"
# how a user may have said it himself, for the libraries of GNU, Intel and LLVM
WAITS = (WAIT, "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
COUNTS = (THREADS, "MKL_NUM_THREADS")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_CPUS = Path("/sys/devices/system/cpu")


_settled: set[str] = set()  # variables that are as this module, and no user, set them


def settle(env: MutableMapping[str, str]) -> None:
    """Say in `env` how many threads, and that they sleep; what a user said stands."""
    if not any(env.get(name) for name in WAITS):
        env[WAIT] = PASSIVE
    if not any(env.get(name) for name in COUNTS):
        env[THREADS] = str(usable())
        _settled.add(THREADS)


def of_each(count: int, env: Mapping[str, str]) -> dict[str, str]:
    """What to set for each of several processes of `count` threads that share a machine.

    Nothing, where a user said how many.
    """
    said = any(env.get(name) for name in COUNTS) and THREADS not in _settled
    return {} if said else {THREADS: str(max(1, count))}


def usable() -> int:
    """Threads that can run at once: cores that this process may use, within its quota."""
    share = quota()
    most = len(cpus()) if share is None else int(share)
    return max(1, min(cores(cpus()), most))


def cpus() -> set[int]:
    """The logical processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def cores(logical: Set[int], where: Path = _CPUS) -> int:
    """How many cores `logical` processors are; two of one core share its units."""
    found = set()
    for cpu in logical:
        try:
            found.add((where / f"cpu{cpu}/topology/thread_siblings_list").read_bytes())
        except OSError:
            return len(logical)
    return len(found)


def quota(own: Path = _OWN, root: Path = _CGROUPS) -> float | None:
    """CPU seconds per second that the control groups of this process allow; None: all.

    Both versions, from the process's own group to the topmost that is seen here: the
    least holds.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [_allowed(folder) for line in lines for folder in _groups(line, root)]
    return min((share for share in found if share), default=None)


def _groups(line: str, root: Path) -> Iterator[Path]:
    """Folders of the groups that a line of /proc/self/cgroup names, the lowest first."""
    _, controllers, path = line.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
        return
    # inside a container the path may be the host's, and the group is the top itself
    for name in (controllers, "cpu") if controllers else (".", "unified"):
        top = root / name
        group = top / path.lstrip("/")
        yield from (
            folder for folder in (group, *group.parents) if folder.is_relative_to(top)
        )


def _allowed(folder: Path) -> float | None:
    """What one group allows: `cpu.max` of version 2, `cpu.cfs_*_us` of version 1."""
    try:
        if (both := folder / "cpu.max").is_file():
            most, period = both.read_text(encoding="utf-8").split()[:2]
        else:
            most = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        share = int(most) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max": no limit
        return None
    return share if share > 0 else None  # -1: no limit
