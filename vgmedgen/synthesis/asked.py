"""What is asked for, what came of it, and where it comes from: one image each."""

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CONTROLS = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: controls, halves, line ends
_BIDI = frozenset(  # Unicode property Bidi_Control
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def is_control(char: str) -> bool:
    """Whether a character is no text: it ends lines, or turns what stands around it.

    Joiners and soft hyphens are text: Persian, Indic scripts and emoji need them.
    """
    return char in _BIDI or unicodedata.category(char) in _CONTROLS


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One image that is wanted.

    `anatomy` and `style` take one half of what is shown from another caption each;
    `towards` moves both by `share` of the way to those of a third.
    """

    number: (
        int  # of the image in its job, from 0; decides which images are drawn together
    )
    prompt: str  # caption
    seed: int  # of its noise
    anatomy: str = ""  # caption whose anatomy is taken; empty: that of `prompt`
    style: str = ""  # caption whose style is taken; empty: that of `prompt`
    towards: str = ""  # caption that anatomy and style are moved towards
    share: float = 0.0  # how far, 0 to 1
    label: str = ""  # class, as the dataset writes it; empty where none was asked for


@dataclass(frozen=True)
class Drawn:
    """One synthetic image, still in memory."""

    ask: Ask
    pixels: NDArray[np.uint8]  # (H, W, 3)
    mask: NDArray[np.uint8] | None = (
        None  # (H, W) of 0 and 1; None where none was asked
    )


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an image comes from, as its file tells."""

    release: str  # digest of the release's manifest
    run: str
    base: str  # digest of the base bundle
    site: str  # pseudonym of the site that drew it
    modality: str  # dermoscopy, ultrasound, endoscopy, or empty
    steps: int  # of the solver
    guidance: float
    cleared: bool  # whether the release gate compared it and let it pass
