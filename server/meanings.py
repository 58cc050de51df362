"""Codes in plain words, for whoever watches a run at the coordinator.

A code is all that crosses a hospital's wall when something goes wrong there, so what it
means is told here once: in short for a table, and with what to do about it.
"""

_SITE = "the site's own log says more"
MEANINGS: dict[str, tuple[str, str]] = {
    "VG00": ("stopped for a reason that nothing foresees", _SITE),
    "VG10": ("a configuration that is not valid", "versions may differ"),
    "VG15": ("another base bundle", "install the run's bundle at the site"),
    "VG20": ("the site's data cannot be used as they are", _SITE),
    "VG30": (
        "a message that is not what the exchange schema lists",
        "the site may run another version",
    ),
    "VG40": (
        "the site's policy, or its data officer, does not allow it",
        "talk to the hospital",
    ),
    "VG41": (
        "too little privacy left at the site",
        "ask for less, or go on without it",
    ),
    "VG42": (
        "waiting for the hospital's approval",
        "before round 1 the run waits for it",
    ),
    "VG43": (
        "out of the site's hours, or of its rounds for the day",
        "it takes part again by itself",
    ),
    "VG44": (
        "the site only shows what would leave",
        "it sends nothing by its own wish",
    ),
    "VG45": ("an order that the site has left behind", "start a new run"),
    "VG50": ("local training stopped", _SITE),
    "VG55": ("state that cannot be written or read back", "look at disk and folder"),
    "VG56": ("too few sites for a round", "start the sites, then the run again"),
    "VG60": ("a release that is incomplete or changed", "install it again"),
    "VG70": (
        "a key, certificate or signature that is not trusted",
        "compare keys with the hospital",
    ),
    "VG75": ("the other side does not answer", "look at the connection"),
    "late": ("no answer in time", "a longer round_timeout_s helps a slow site"),
    "removed": (
        "the coordinator has removed it, or it has another key since the run began",
        "a new run knows its new key",
    ),
    "offline": ("the node went away in the middle of it", "it joins again by itself"),
    "FL00": ("Flower reports an error that it does not name", _SITE),
    "FL01": ("the node could not load its client app", "install the client anew"),
    "FL02": (
        "the node's app failed outside our guard",
        "it may run another client: talk to the hospital",
    ),
    "FL06": ("a module in front of the client app refused", "install the client anew"),
    "FL07": ("the node refused the bundle of code", "nothing of ours ships any"),
    "FL08": ("the node's training process died", "its memory may have run out"),
}
"""Code -> (what it means in a few words, what to do or to know)."""


def meaning(code: str) -> str:
    """What a code means, in a few words; empty for no code."""
    if not code:
        return ""
    return MEANINGS.get(code, ("a code that this version does not know", ""))[0]


def advice(code: str) -> str:
    """What to do about a code, or to know about it; may be empty."""
    return MEANINGS.get(code, ("", ""))[1]


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
