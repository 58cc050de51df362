"""How far a site's ledger has come, as the coordinator may know it.

A coordinator that remembers the mark notices a ledger that was put back from a copy. The
mark tells nothing of a patient: it is the number of rounds that were ever booked and a
code over what those orders said (run, round, stage, plan, base), keyed by the ledger's
random id, which never leaves the site. Cohorts, their members and times are not in it, so
that two sites which differ in one patient have the same mark.
"""

import hashlib
import hmac
from collections.abc import Sequence

from vgmedgen.privacy.chain import Row, canonical
from vgmedgen.privacy.facts import salt

_SAID = ("run", "round", "stage", "plan", "base")  # by the orders: public
_DIGITS = 32  # hexadecimal
NOTHING = f"0-{'0' * _DIGITS}"  # of a site that has booked no round


def mark(rows: Sequence[Row]) -> str:
    """The mark of a ledger with these rows; without any, that of a new site."""
    booked = [row.facts for row in rows if row.kind == "stage"]
    if not booked:
        return NOTHING
    said = canonical([[facts[name] for name in _SAID] for facts in booked])
    code = hmac.new(salt(rows).encode(), said.encode(), hashlib.sha256).hexdigest()
    return f"{len(booked)}-{code[:_DIGITS]}"


def went_back(before: str, now: str) -> bool:
    """Whether a ledger with the mark `now` cannot be one that had the mark `before`."""
    (old, code), (new, other) = before.split("-"), now.split("-")
    return int(new) < int(old) or (int(new) == int(old) and code != other)
