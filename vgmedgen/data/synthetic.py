"""Whether an image file says that it was drawn, and was not cleared to be used.

What `vgmedgen synthesize` writes says both (see `vgmedgen.synthesis.provenance`). A file
that lost its metadata on the way says nothing, and looks like any other.
"""

import json
from pathlib import Path
from typing import Any

from vgmedgen.data.pixels.opening import opened
from vgmedgen.errors import DataError

KEY = "vgmedgen"
"""Text chunk of a PNG that tells where it comes from; a JPEG has its comment."""
NOT_CLEARED = "NOT CLEARED"
"""Stands in the description of a JPEG that no gate cleared."""

_DESCRIPTION = 0x010E  # EXIF tag


def is_uncleared(path: Path) -> bool:
    """Whether a PNG or JPEG says that it is synthetic and that no gate let it pass.

    Only the head of the file is read; one that cannot be opened is left to whoever
    reads its pixels.
    """
    try:
        with opened(path, whole=False) as image:
            told: dict[Any, Any] = dict(image.info)
            described = str(image.getexif().get(_DESCRIPTION, ""))
    except DataError:
        return False
    if NOT_CLEARED in described:
        return True
    try:
        facts = json.loads(told.get(KEY) or told.get("comment") or "")
    except (ValueError, TypeError, RecursionError):
        return False  # somebody else's comment
    if not isinstance(facts, dict) or facts.get("synthetic") is not True:
        return False
    return facts.get("cleared") is not True
