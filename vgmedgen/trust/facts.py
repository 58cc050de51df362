"""What an audit log may say: names, words and numbers from closed lists.

Free text could carry a file's name or a patient's; there is none, so nothing of the kind
can get into a log, whoever calls it with whatever.
"""

import math
import re
from collections.abc import Mapping

from vgmedgen.codes import CODES
from vgmedgen.errors import StateError

EVENTS = frozenset(
    {
        "in",  # a message arrived
        "out",  # a message left
        "start",
        "stop",
        "approve",
        "deny",
        "register",  # a node's key, at the coordinator
        "renew",  # a certificate
        "install",  # a release
        "release",  # of a run whose last rounds did not count, at the coordinator
        "use",
        "roll-back",
        "remove",
        "mended",  # this log, after a crash in the middle of a line
    }
)
WHY = (
    *sorted({one.why for one in CODES.values() if one.why}),
    "unfinished-line",
    "head-behind",
    "unreadable",
    "unknown-kind",
    "unsigned",
    "coordinator",
    "exchange",
    "denied",
    "changed",
    "rounds",
    "repeated",
    "size",
    "last-look",
    "signal",
    "crashed",
    "restarted",
    "replaced",
    "finished",
    "worse",  # a release, on the site's held-out images, than what was in use
    "overruled",
)
_WHOLE, _REAL = "a whole number from 0", "a number from 0"
_MOST = 2**63  # a number of 64 bits: bytes, process ids, units
FACTS: Mapping[str, str] = {
    "run": "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "round": _WHOLE,
    "turn": _WHOLE,
    "stage": "align|generate",
    "kind": r"(query\.)?(hello|install)|train|evaluate|unknown",
    "digest": "[0-9a-f]{64}",
    "bytes": _WHOLE,
    "seconds": _REAL,
    "decision": "accepted|refused|sent|held|dry-run|repeated|received|left-out|approved"
    "|denied|failed|dropped",
    "code": "VG[0-9]{2}|FL[0-9]{2}|late|offline|removed",
    "site": "[a-z0-9-]{1,40}",
    "node": "[0-9a-f]{1,64}",  # Flower's number, or the digest of a public key
    "coordinator": "[0-9a-f]{64}",
    "epsilon": _REAL,
    "units": _WHOLE,
    "version": "[0-9A-Za-z.+-]{1,40}",
    "why": "|".join(WHY),
    "pid": _WHOLE,
    "approved_by": "[A-Za-z .'-]{1,60}",  # typed by the data officer
}


def checked(
    event: str, facts: Mapping[str, str | int | float | bool]
) -> dict[str, str | int | float]:
    """The facts of an entry, those with an empty word left out.

    Raises:
        StateError: for an event or a fact that is not listed, or not of its form.
    """
    if event not in EVENTS:
        raise StateError(f"an audit log has no event '{event[:40]}'; see EVENTS")
    return {name: _fitting(name, value) for name, value in facts.items() if value != ""}


def _fitting(name: str, value: str | float | bool) -> str | int | float:
    form = FACTS.get(name)
    if form is None:
        raise StateError(f"an audit log has no fact '{name[:40]}'; see FACTS")
    if form in (_WHOLE, _REAL):
        types = int if form == _WHOLE else (int, float)
        fits = (
            isinstance(value, types)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and 0 <= value < _MOST
        )
    else:
        fits = isinstance(value, str) and re.fullmatch(form, value) is not None
    if not fits:
        # the value stays out of the message too: it may be what must not be told
        raise StateError(f"an audit log's fact '{name}' must be {form}; it was not")
    return value
