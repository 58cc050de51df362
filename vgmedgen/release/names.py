"""How the files of a release may be called, and how a name from elsewhere is told."""

import re

FILE_NAME = re.compile(r"([a-z0-9_]{1,40}/)?[A-Za-z0-9_]{1,60}\.(json|safetensors|md)")
LONGEST_NAME = 120  # characters, of any that fits
_LONGEST_SHOWN = 100


def shown(name: object) -> str:
    """A name as a message may hold it: one line of ASCII, whatever somebody chose."""
    return ascii(str(name))[1:-1][:_LONGEST_SHOWN]
