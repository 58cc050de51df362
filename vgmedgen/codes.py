"""Every code in one table: what it means, what to do about it, its word in an audit log.

A code is all that crosses a hospital's wall when something goes wrong there, so whoever
reads one, at the coordinator, in a report or in a hospital's own log, reads the same.
"""

from dataclasses import dataclass

_SITE = "the site's own log says more"


@dataclass(frozen=True)
class Code:
    """What a code says."""

    meaning: str  # in a few words, for a table
    advice: str  # what to do about it, or to know
    why: str = ""  # word of an audit log; empty for what no site of ours answers with


CODES: dict[str, Code] = {
    "VG00": Code("stopped for a reason that nothing foresees", _SITE, "unforeseen"),
    "VG10": Code("a configuration that is not valid", "versions may differ", "config"),
    "VG15": Code("another base bundle", "install the run's bundle at the site", "base"),
    "VG20": Code("the site's data cannot be used as they are", _SITE, "data"),
    "VG30": Code(
        "a message that is not what the exchange schema lists",
        "the site may run another version",
        "order",
    ),
    "VG31": Code(
        "the site speaks another version of the protocol",
        "install the same version on both sides",
        "version",
    ),
    "VG40": Code(
        "the site's policy, or its data officer, does not allow it",
        "talk to the hospital",
        "policy",
    ),
    "VG41": Code(
        "too little privacy left at the site",
        "ask for less, or go on without it",
        "budget",
    ),
    "VG42": Code(
        "waiting for the hospital's approval",
        "before round 1 the run waits for it",
        "waiting",
    ),
    "VG43": Code(
        "out of the site's hours, or of its rounds for the day",
        "it takes part again by itself",
        "hours",
    ),
    "VG44": Code(
        "the site only shows what would leave",
        "it sends nothing by its own wish",
        "dry-run",
    ),
    "VG45": Code("an order that the site has left behind", "start a new run", "replay"),
    "VG50": Code("local training stopped", _SITE, "training"),
    "VG55": Code(
        "state that cannot be written or read back", "look at disk and folder", "state"
    ),
    "VG56": Code(
        "too few sites for a round", "start the sites, then the run again", "sites"
    ),
    "VG60": Code(
        "a release that is incomplete or changed", "install it again", "release"
    ),
    "VG70": Code(
        "a key, certificate or signature that is not trusted",
        "compare keys with the hospital",
        "signature",
    ),
    "VG75": Code(
        "the other side does not answer", "look at the connection", "unreachable"
    ),
    "late": Code("no answer in time", "a longer round_timeout_s helps a slow site"),
    "removed": Code(
        "removed, or known by another key since the run began",
        "a new run knows its new key",
    ),
    "offline": Code(
        "the node went away in the middle of it", "it joins again by itself"
    ),
    "FL00": Code("Flower reports an error that it does not name", _SITE),
    "FL01": Code("the node could not load its client app", "install the client anew"),
    "FL02": Code(
        "the node's app failed outside our guard",
        "it may run another client: talk to the hospital",
    ),
    "FL06": Code(
        "a module in front of the client app refused", "install the client anew"
    ),
    "FL07": Code("the node refused the bundle of code", "nothing of ours ships any"),
    "FL08": Code("the node's training process died", "its memory may have run out"),
}
"""By code: those of `vgmedgen.errors`, the coordinator's own words, and Flower's."""


def meaning(code: str) -> str:
    """What a code means, in a few words; empty for no code."""
    if not code:
        return ""
    return CODES.get(code, Code("a code that this version does not know", "")).meaning


def advice(code: str) -> str:
    """What to do about a code, or to know about it; may be empty."""
    return CODES[code].advice if code in CODES else ""


def short(code: str) -> str:
    """A code in one to three characters, for a cell of a grid."""
    if code in {"late", "offline", "removed"}:
        return code[0].upper()
    prefix, number = code[:2], code[2:]
    if prefix == "VG" and number.isdigit():
        return number
    if prefix == "FL" and number.isdigit():
        return f"F{int(number)}"
    return "?"
