"""Text for a terminal, a pipe or a log that may know fewer signs than we write.

Standard output has the encoding of the locale: ASCII under cron, Latin-1 or a Windows
code page elsewhere. A sign that it lacks must never end a command whose work is done.
"""

import codecs
import sys
import unicodedata

PLAIN = "vgmedgen.plain"  # the name of the error handler
_SIGNS = {
    "✓": "ok",
    "✗": "x",
    "→": "->",
    "←": "<-",
    "…": "...",
    "·": "-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "—": "-",
    "≥": ">=",
    "≤": "<=",
    "±": "+-",
    "≈": "~",
    "∞": "inf",
    "ε": "epsilon",
    "δ": "delta",
    "\N{GREEK SMALL LETTER SIGMA}": "sigma",
    "\N{MICRO SIGN}": "u",
    "μ": "u",
    "°": "deg",
    "“": '"',
    "”": '"',
    "„": '"',
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "•": "*",
    "●": "*",
    "○": "o",
    "■": "#",
    "▫": ".",
    "✕": "x",
}


def plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for signs that an encoding lacks: a word, or their number.

    Letters are numbers: what is left of a name must not look like another name.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    told = (_plain(sign) for sign in error.object[error.start : error.end])
    return "".join(told), error.end


def _plain(sign: str) -> str:
    if sign in _SIGNS:
        return _SIGNS[sign]
    if unicodedata.category(sign) == "So" or "─" <= sign <= "▟":
        return "*" if "▀" <= sign <= "▟" else "-"  # a bar or a frame of rich's
    return sign.encode("ascii", "backslashreplace").decode("ascii")


def settle() -> None:
    """Let standard output and error take every sign, whatever their encoding."""
    codecs.register_error(PLAIN, plain)
    for stream in (sys.stdout, sys.stderr):
        # what replaces them in a test, or under a library, may be no text file
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=PLAIN)
