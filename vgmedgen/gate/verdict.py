"""What the gate says of one image, and what a picture's nearest relatives are."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vgmedgen.errors import StateError

STRUCTURE = (
    "its fine structure is that of a training image, as it is, turned or cropped"
)
HASH = "its perceptual hash is that of a training image, as it is or turned"
FEATURES = "the encoder sees a training image in it, as it is or turned"
PATCHES = (
    "parts of it lie as they do in a training image, cropped, scaled, turned or bent"
)
REASONS = (STRUCTURE, HASH, FEATURES, PATCHES)  # in the order of `compare.DETECTORS`


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says of one synthetic image."""

    cleared: bool
    reason: str  # one of REASONS; empty where cleared
    distance: float  # of features, to the nearest training image
    score: float  # how unusual; the threshold of the report is in the same measure
    closer: bool  # nearer to the training images than to the held-out ones
    row: int  # of the training image that it is most like; stays at the site

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Verdict":
        """Inverse of `to_json`.

        Raises:
            StateError: if the line is damaged.
        """
        kinds = {
            "cleared": bool,
            "reason": str,
            "distance": float,
            "score": float,
            "closer": bool,
            "row": int,
        }
        try:
            told = json.loads(text)
            whole = {name: type(value) for name, value in told.items()} == kinds
        except (json.JSONDecodeError, AttributeError):
            whole = False
        if not whole:
            raise StateError(
                f"this is no verdict of the release gate: '{text[:60]}'; the line is "
                "damaged: draw the image again"
            )
        return cls(**told)


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A real training image near a synthetic one; for the site's own eyes."""

    image: Path
    unit: str
    distance: float  # of features
    pixels: NDArray[np.uint8]  # (H, W, 3)
