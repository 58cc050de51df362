"""The preflight: everything that a node needs, examined before it serves.

Every examination gives its own line and none ends the others, so that one look shows all
that is to do. Nothing in the folder is changed but the memory of which images were looked
at, nothing is booked, and the coordinator is asked only what it answers without letting
the node join.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from client.preflight import data, keys, machine, network
from client.preflight import folder as files
from client.preflight.finding import Caution, Finding, examined, in_range
from client.preflight.place import Place

__all__ = ["Finding", "examine", "in_range"]


class _Step(NamedTuple):
    name: str
    ask: Callable[[Place], str | Caution | list[Finding]]
    todo: str  # where the fault itself does not say
    needs: tuple[str, ...] = ()  # names of steps without which there is no asking
    quick: bool = False  # whether `start` waits for it


def examine(folder: Path, *, quick: bool = False) -> list[Finding]:
    """Examine a site's folder, its machine, and the way to its coordinator.

    Args:
        folder: of the site, or its site.yaml.
        quick: only what `start` has to know before it starts.

    Returns:
        What was found, in the order in which it is to be mended.
    """
    place = Place(folder.parent if folder.is_file() else folder, quick=quick)
    found: dict[str, list[Finding]] = {}
    for step in _STEPS:
        if step.quick or not quick:
            found[step.name] = _taken(step, place, found)
    return [finding for findings in found.values() for finding in findings]


def _taken(step: _Step, place: Place, found: dict[str, list[Finding]]) -> list[Finding]:
    for need in step.needs:
        wrong = [finding for finding in found[need] if not finding.ok]
        if wrong:
            told, lost = f"not examined: it needs '{need}'", wrong[0].unreachable
            todo = f"mend '{need}' first"
            return [
                Finding(step.name, ok=False, told=told, todo=todo, unreachable=lost)
            ]
    several: list[Finding] = []

    def ask() -> str | Caution:
        said = step.ask(place)
        if not isinstance(said, list):
            return said
        several.extend(said)
        return ""

    one = examined(step.name, ask, step.todo)
    return several or [one]


_SITE, _BASE, _DATA, _GATE = "site.yaml", "base bundle", "data", "release gate"
_LOG = "audit log"
_STEPS = (
    _Step(_SITE, files.site_yaml, "compare it with the kit's", quick=True),
    _Step("policy", files.policy, "correct policy in site.yaml", quick=True),
    _Step("folder", files.folder, "mend its permissions", quick=True),
    _Step(_LOG, files.audit_log, "vgmedgen-client audit verify", quick=True),
    _Step(  # it is compared with what the audit log says was answered
        "ledger",
        files.ledger,
        "vgmedgen-client ledger verify",
        (_SITE, _LOG),
        quick=True,
    ),
    _Step("approvals", files.approvals, "vgmedgen-client runs", quick=True),
    _Step("node key", keys.node_key, "vgmedgen-client keygen", quick=True),
    _Step("CA certificate", keys.authority, "copy ca.crt from the kit", quick=True),
    _Step("node", files.node, "stop the other node", quick=True),
    _Step("port", network.port, "check coordinator.address", quick=True),
    _Step("TLS", network.tls, "ask the coordinator", ("port",), quick=True),
    _Step("clock", network.clock, "set it by NTP", ("TLS",), quick=True),
    _Step(
        "registered",
        network.registered,
        "ask the coordinator",
        ("node key", "TLS", "clock"),
        quick=True,
    ),
    _Step("versions", machine.versions, "install vgmedgen anew"),
    _Step(_BASE, machine.base, "vgmedgen base verify", (_SITE,)),
    _Step(_DATA, data.sources, "vgmedgen data check", (_SITE,)),
    _Step("masks", data.masks, "vgmedgen data check", (_DATA,)),
    _Step("captions", data.captions, "vgmedgen data check", (_DATA,)),
    _Step("min_units", data.least_units, "add data", (_DATA, "policy")),
    _Step(_GATE, data.release_gate, "vgmedgen gate", (_DATA,)),
    _Step("GPU", machine.gpu, "mend its driver", (_BASE,)),
    _Step("memory", machine.memory, "stop other programs", (_BASE,)),
    _Step("disk", machine.disk, "free some space", (_BASE, _DATA)),
)
