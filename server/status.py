"""How a coordinator's nodes and runs stand, read from its files and its server.

Nothing is written here. A file that is damaged is told as damaged, in one line, and
everything else is told all the same.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from server import runs
from server.kits import Kits
from server.place import NODES, SKEW
from server.standing import RunStatus, attempt, facts_of, stand, word
from vgmedgen.codes import meaning
from vgmedgen.errors import BaseError, UnreachableError, VGMedGenError
from vgmedgen.trust.nodekeys import MOST_SKEW_S


class NodeSeen(Protocol):
    """A node, as the server knows it."""

    @property
    def node_id(self) -> int:
        """Flower's number of it."""

    @property
    def public_key(self) -> str:
        """Bytes of its key, hex."""

    @property
    def online(self) -> bool:
        """Whether it is there now."""

    @property
    def last_seen(self) -> datetime | None:
        """When it was there; None if it never was."""


class Control(Protocol):
    """What this asks of a running server."""

    def nodes(self) -> Sequence[NodeSeen]:
        """Every registered node.

        Raises:
            UnreachableError: if the server does not answer.
        """


@dataclass(frozen=True, kw_only=True)
class NodeStatus:
    """One site's node."""

    site: str
    registered: bool  # whether the coordinator has its key
    online: bool | None = None  # None: nobody knows, as the server is down
    last_seen: datetime | None = None
    base: str = ""  # digest of its base bundle, as it said
    base_ok: bool | None = (
        None  # None: it has not said, or there is none to compare with
    )
    version: str = ""
    skew_s: float | None = None  # seconds that its clock is ahead, where that is much
    refused: str = ""  # code of the last refusal


@dataclass(frozen=True, kw_only=True)
class Status:
    """Everything that a coordinator wants to see at once."""

    at: datetime
    name: str
    host: str
    port: int
    running: bool  # whether the server answers
    base: str = ""  # digest of the coordinator's bundle
    expiries: Mapping[str, datetime] = field(default_factory=dict)  # ca, server
    warnings: tuple[str, ...] = ()  # certificates that expire, files that are damaged
    nodes: tuple[NodeStatus, ...] = ()
    runs: tuple[RunStatus, ...] = ()  # newest first


def gather(kits: Kits, control: Control | None) -> Status:
    """Look at everything once.

    Args:
        kits: the coordinator's folder.
        control: of the running server; None where none runs.
    """
    told: list[str] = []
    now = datetime.now(UTC)
    seen = _seen(control, told)
    told += attempt(told, lambda: kits.warnings(now)) or []
    named = attempt(told, lambda: runs.runs_of(kits.state)) or []
    found = tuple(stand(kits.state, run) for run in reversed(named))
    base = kits.config.base_digest or next(filter(None, (r.base for r in found)), "")
    return Status(
        at=now,
        name=kits.config.name,
        host=kits.config.host,
        port=kits.config.port,
        running=seen is not None,
        base=base,
        expiries=attempt([], kits.expiries) or {},
        nodes=_nodes(kits, seen, base, told),
        runs=found,
        warnings=tuple(told),
    )


def notes(node: NodeStatus) -> list[str]:
    """What the coordinator should know of a node, in plain words; empty if all is well."""
    found = []
    if not node.registered:
        found.append("its key is not registered")
    if node.base_ok is False and node.refused != BaseError.code:
        found.append("has another base bundle")
    if node.skew_s is not None:
        way = "ahead" if node.skew_s > 0 else "behind"
        more = ", too far to be let in" if abs(node.skew_s) >= MOST_SKEW_S else ""
        found.append(f"clock {abs(node.skew_s):.0f} s {way}{more}")
    if node.refused:
        found.append(f"{node.refused}: {meaning(node.refused)}")
    return found


def to_json(status: Status) -> str:
    """Everything, and what the codes in it mean."""
    codes = {node.refused for node in status.nodes} | {run.code for run in status.runs}
    for run in status.runs:
        for record in run.records:
            codes |= {*record.left_out.values(), *record.heldout_left_out.values()}
    facts = asdict(status) | {
        "at": status.at.isoformat(timespec="seconds"),
        "meanings": {code: meaning(code) for code in sorted(codes - {""})},
    }
    return json.dumps(_plain(facts), indent=2)


def _plain(value: object) -> object:
    """Values that strict JSON has: a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _seen(control: Control | None, told: list[str]) -> Sequence[NodeSeen] | None:
    """The nodes that the server knows; None where it does not answer."""
    try:
        return None if control is None else control.nodes()
    except UnreachableError:
        return None  # said by `running`
    except VGMedGenError as error:
        told.append(f"{error} [{error.code}]")
        return None


def _nodes(
    kits: Kits, seen: Sequence[NodeSeen] | None, base: str, told: list[str]
) -> tuple[NodeStatus, ...]:
    keys = attempt(told, kits.nodes) or {}
    said = facts_of(kits.state / NODES, told)
    skews = facts_of(kits.state / SKEW, told)
    kitted = attempt([], kits.sites) or []  # what is wrong with it is told by now
    found = []
    for site in sorted({*keys, *said, *kitted}):
        own = said.get(site)
        facts = own if isinstance(own, dict) else {}
        here = [
            n for n in seen or () if n.public_key and n.public_key == keys.get(site)
        ]
        moments = [n.last_seen for n in here if n.last_seen]
        moments += filter(None, [_moment(facts.get("seen"))])
        has, skew = word(facts, "base"), skews.get(site)
        found.append(
            NodeStatus(
                site=site,
                registered=site in keys,
                online=None if seen is None else any(n.online for n in here),
                last_seen=max(moments, default=None),
                base=has,
                base_ok=has == base if has and base else None,
                version=word(facts, "version"),
                skew_s=float(skew) if isinstance(skew, int | float) else None,
                refused=word(facts, "code"),
            )
        )
    return tuple(found)


def _moment(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
