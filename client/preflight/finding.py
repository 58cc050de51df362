"""What one examination found, and how it is asked so that it cannot fail."""

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from vgmedgen.errors import UnreachableError, VGMedGenError

log = logging.getLogger(__name__)

_FIRST = 10  # counts below are not told apart


@dataclass(frozen=True)
class Finding:
    """One line of a preflight.

    Attributes:
        name: of what was examined; the same in every preflight.
        ok: whether a node can work with it; also true of a warning.
        told: what was found.
        todo: what to do about it; empty where nothing is.
        unreachable: whether it failed only because the other side does not answer.
        warning: whether it works, and somebody should still look at it.
    """

    name: str
    ok: bool
    told: str
    todo: str = ""
    unreachable: bool = False
    warning: bool = False


@dataclass(frozen=True)
class Caution:
    """What an examination says where it works and somebody should still look at it."""

    told: str
    todo: str


def examined(name: str, ask: Callable[[], str | Caution], todo: str) -> Finding:
    """Ask one question; whatever goes wrong in it is its answer.

    Args:
        name: of the finding.
        ask: gives what was found, or raises what is wrong.
        todo: what to do where the error itself does not say.
    """
    try:
        said = ask()
    except VGMedGenError as error:
        told, _, hint = _line(error).partition("; ")
        lost = isinstance(error, UnreachableError)
        return Finding(name, ok=False, told=told, todo=hint or todo, unreachable=lost)
    except (Exception, SystemExit) as error:  # a preflight ends with all of its lines
        log.debug("unforeseen in '%s'", name, exc_info=True)
        told = f"unforeseen: {_line(f'{type(error).__name__}: {error}')}"
        return Finding(name, ok=False, told=told, todo=todo)
    if isinstance(said, Caution):
        return Finding(name, ok=True, told=said.told, todo=said.todo, warning=True)
    return Finding(name, ok=True, told=said)


def in_range(count: int) -> str:
    """A count as a range: what a preflight says may be read outside the hospital."""
    if count < _FIRST:
        return f"fewer than {_FIRST}"
    low = _FIRST
    for factor in itertools.cycle((2, 2.5, 2)):  # 10, 20, 50, 100, 200, 500, …
        high = round(low * factor)
        if count < high:
            break
        low = high
    return f"{low}-{high - 1}"


def _line(said: object) -> str:
    return " ".join(str(said).split())
