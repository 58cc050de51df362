"""Scales from measured numbers to the words of the field, one set per modality.

Cuts were set on HAM10000, BUSI and Kvasir-SEG so that no word takes most of the images:
a word that is always said steers nothing. What a site's camera makes of brightness is
part of its style, so light is judged against the modality and not in absolute terms.
"""

import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Words for a number: `words[i]` below `cuts[i]`, the last word from there up."""

    cuts: tuple[float, ...]
    words: tuple[str, ...]

    def of(self, value: float) -> str:
        """The word for `value`."""
        return self.words[bisect.bisect_right(self.cuts, value)]


# Geometry means the same in every modality.
ROW = Scale((0.3, 0.45, 0.55, 0.7), ("top", "upper", "middle", "lower", "bottom"))
COLUMN = Scale(
    (0.3, 0.45, 0.55, 0.7), ("far left", "left", "central", "right", "far right")
)
SIZE = Scale(  # share of the image
    (0.03, 0.08, 0.18, 0.35, 0.55),
    ("tiny", "small", "medium", "large", "very large", "frame-filling"),
)
SHAPE = Scale((1.25, 1.6), ("round", "oval", "elongated"))  # long over short axis
OUTLINE = Scale((0.075, 0.125), ("smooth", "lobulated", "irregular"))
NUMBER = Scale((2, 3), ("", "two", "several"))
ORIENTATION = Scale(  # degrees of the long axis
    (22.5, 67.5, 112.5, 157.5),
    ("horizontal", "rising diagonal", "vertical", "falling diagonal", "horizontal"),
)
ORIENTED = 1.25  # elongation from which an axis has a direction
BORDER = Scale((0.38, 0.62), ("ill-defined", "moderately defined", "sharp"))
CONTRAST = Scale((12, 25), ("low", "moderate", "high"))  # CIELAB distance
TEXTURE = Scale((8, 13), ("homogeneous", "mottled", "heterogeneous"))

# Ultrasound: lightness of the lesion minus its surround, and what follows in depth.
ANECHOIC = 12  # lightness of a lesion without echoes
ECHO = Scale(
    (-25, -8, 5), ("markedly hypoechoic", "hypoechoic", "isoechoic", "hyperechoic")
)
POSTERIOR = Scale((-8, 12), ("posterior shadowing", "", "posterior enhancement"))
DEPTH = Scale((-26, -16), ("strong attenuation", "moderate attenuation", "even gain"))

# Skin tone as the picture shows it. The typology angle is no use here: the colour cast
# of dermoscopes makes half of all skin bluish, which that angle reads as very fair.
_FIVE = ("very dim", "dim", "balanced", "bright", "very bright")
_GRAIN = ("soft", "clear", "crisp")


@dataclass(frozen=True)
class Look:
    """Scales of what differs between modalities; lightness is CIELAB L."""

    tone: Scale  # lightness of the surround
    light: Scale  # lightness of the image
    grain: Scale  # mean step between neighbours
    shade: float  # lightness between halves from which shading is said


LOOKS: Mapping[str, Look] = {
    "dermoscopy": Look(
        Scale((58, 65, 71, 76), ("dark", "tan", "intermediate", "fair", "very fair")),
        Scale((57, 62.5, 68, 72.5), _FIVE),
        Scale((2.05, 2.8), _GRAIN),
        3.0,
    ),
    "ultrasound": Look(
        Scale((42, 53), ("dark-grey", "mid-grey", "light-grey")),
        Scale((34, 40, 45.5, 50), _FIVE),
        Scale((4.4, 5.0), _GRAIN),
        4.0,
    ),
    "endoscopy": Look(
        Scale((43, 54), ("dusky", "mid-toned", "pale")),
        Scale((43, 47.5, 51.5, 54.5), _FIVE),
        Scale((3.8, 4.6), _GRAIN),
        6.0,
    ),
    "": Look(
        Scale((45, 65), ("dark", "intermediate", "light")),
        Scale((30, 45, 60, 75), _FIVE),
        Scale((2.8, 4.6), _GRAIN),
        5.0,
    ),
}
CORNERS = 0.7  # lightness of the corners over the image's, below which they are dark
INSET = 0.5  # share of black from which an inset is there
FRAMES = ("dark corners", "black inset")
SIDES = ("upward", "downward", "leftward", "rightward")


def phrases() -> Iterator[str]:
    """Every word or phrase that a scale here can say."""
    shared = (ROW, COLUMN, SIZE, SHAPE, OUTLINE, NUMBER, ORIENTATION, BORDER, CONTRAST)
    own = (TEXTURE, ECHO, POSTERIOR, DEPTH)
    for scale in (*shared, *own):
        yield from scale.words
    for look in LOOKS.values():
        for scale in (look.tone, look.light, look.grain):
            yield from scale.words
    yield from ("centre", "anechoic", *FRAMES, *SIDES)
