"""Nothing is imported from where a command happens to run, nor from a folder it is given.

A kit comes from the coordinator and is no program; yet Python looks for modules in the
working folder first wherever it is told to by `-m`, `-c` or an empty entry of PYTHONPATH,
as `export PYTHONPATH=$PYTHONPATH:/opt/x` leaves one. The loader of shared libraries does
the same with LD_LIBRARY_PATH. What cannot be kept out from inside is what such a variable
brought in before the first line of ours ran; that much is said.
"""

import os
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path

SAFE = "PYTHONSAFEPATH"  # set: neither -m nor -c puts the working folder first
SEARCHED = ("PYTHONPATH", "LD_LIBRARY_PATH", "PATH")
OURS = Path(__file__).resolve().parents[2]  # where this very code was found


def guard(*foreign: Path) -> list[str]:
    """Keep the working folder, and `foreign` ones, out of this process and its children.

    Returns:
        The variables that named one of them.
    """
    left_out = [
        folder
        for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if not _kept(folder, foreign)
    ]
    gone = {os.path.realpath(folder) for folder in left_out} - {str(OURS)}
    sys.path[:] = [
        folder
        for folder in sys.path
        if os.path.realpath(folder) == str(OURS)
        or (Path(folder).is_absolute() and os.path.realpath(folder) not in gone)
    ]
    found = changed(os.environ, foreign)
    tidy(os.environ, foreign)
    return found


def tidy(env: MutableMapping[str, str], foreign: Iterable[Path] = ()) -> None:
    """Take the working folder and `foreign` ones out of the search paths of `env`."""
    foreign = tuple(foreign)
    for name in changed(env, foreign):
        kept = [
            folder for folder in env[name].split(os.pathsep) if _kept(folder, foreign)
        ]
        env[name] = os.pathsep.join(kept)
        if not kept:  # an empty value is the working folder again
            del env[name]
    env[SAFE] = "1"


def changed(env: Mapping[str, str], foreign: Iterable[Path] = ()) -> list[str]:
    """The search paths of `env` that name the working folder or a `foreign` one."""
    foreign = tuple(foreign)
    return [
        name
        for name in SEARCHED
        if env.get(name)
        and not all(_kept(folder, foreign) for folder in env[name].split(os.pathsep))
    ]


def _kept(folder: str, foreign: Iterable[Path]) -> bool:
    """Whether what lies in `folder`, an entry of a search path, may run."""
    if not Path(folder).is_absolute():
        return False
    real = Path(folder).resolve()
    if real == OURS:
        return True
    return not any(real.is_relative_to(other.resolve()) for other in foreign)
