"""Times and words as a person at a terminal or a page wants them."""

import re
from datetime import datetime

# Controls, marks without width or of direction, and halves of characters, which no file
# should hold and no encoding can write.
_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_MINUTE, _HOUR, _DAY = 60, 3600, 86400  # seconds
_TENTHS = 10  # seconds below which a tenth is told


def how_long(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds < _TENTHS:
        return f"{seconds:.1f} s"
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    minutes = int(seconds) // _MINUTE
    if seconds < _HOUR:
        return f"{minutes} min {int(seconds) % _MINUTE:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def ago(moment: datetime | None, now: datetime) -> str:
    """How long a moment is past, roughly."""
    if moment is None:
        return "never"
    past = (now - moment).total_seconds()
    if past < 1:
        return "now"
    for unit, length in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if past >= 2 * length:
            return f"{past // length:.0f} {unit} ago"
    return f"{past:.0f} s ago"


def clean(words: object) -> str:
    """Text without anything that could steer a terminal or turn the reading around."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", str(words))
