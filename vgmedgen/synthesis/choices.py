"""The words that a caption can be asked for: classes, attributes and facts."""

import difflib
from collections.abc import Collection, Mapping

from vgmedgen.data import colour, scales
from vgmedgen.data.attributes import ANATOMY, CASTS, COLOURS, NO_LESION, STYLE
from vgmedgen.data.captions import DIAGNOSES, IMAGES, LOCALIZATIONS, PEOPLE

CLASSES: Mapping[str, tuple[str, ...]] = {
    "dermoscopy": ("nv", "mel", "bkl", "bcc", "akiec", "vasc", "df"),
    "ultrasound": ("benign", "malignant", "normal"),
    "endoscopy": ("polyp",),
    "": (),
}
"""Labels of the published datasets by modality, the frequent ones first."""
FACTS = ("localization", "sex", "age")
NEEDS_LESION = frozenset({*ANATOMY, "colour", "contrast", "posterior"}) - {"size"}
UNSAID = {"number": "one"}  # the word that leaves an attribute unsaid; else NONE
NONE = "none"


def words(key: str, modality: str) -> tuple[str, ...]:
    """What an attribute can be; nothing where captions of the modality do not say it."""
    look, ultrasound = scales.LOOKS[modality], modality == "ultrasound"
    sides = ("leftward", "rightward") if ultrasound else scales.SIDES
    table: dict[str, tuple[str, ...]] = {
        "number": scales.NUMBER.words,
        "size": (*scales.SIZE.words, NO_LESION),
        "shape": scales.SHAPE.words,
        "outline": scales.OUTLINE.words,
        "orientation": scales.ORIENTATION.words,
        "position": _positions(),
        "border": scales.BORDER.words,
        "colour": ("anechoic", *scales.ECHO.words)
        if ultrasound
        else _named(COLOURS.get(modality, colour.SKIN_LESION)),
        "texture": scales.TEXTURE.words,
        "contrast": scales.CONTRAST.words,
        "posterior": scales.POSTERIOR.words if ultrasound else (),
        "tone": look.tone.words,
        "light": look.light.words,
        "cast": () if ultrasound else _named(CASTS.get(modality, colour.SKIN_CAST)),
        "depth": scales.DEPTH.words if ultrasound else (),
        "grain": look.grain.words,
        "frame": ("black inset",) if modality == "endoscopy" else ("dark corners",),
        "shading": (*sides, *_corners(modality)),
    }
    return tuple(dict.fromkeys(word for word in table[key] if word))


def attributes(modality: str) -> tuple[str, ...]:
    """Keys that captions of the modality have words for, in a fixed order."""
    return tuple(key for key in (*ANATOMY, *STYLE) if words(key, modality))


def unsaid(key: str) -> str:
    """The word by which an attribute is left out of a caption."""
    return UNSAID.get(key, NONE)


def agreed(found: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The words that go together; those that were given come before those found.

    Without a lesion there is none to describe, and a round one lies in no direction.
    """
    meant = {key for key, word in given.items() if word != unsaid(key)}
    said = {**found, **given}
    if "size" not in given and meant & NEEDS_LESION and said.get("size") == NO_LESION:
        del said["size"]  # what is described is there
    kept = {key: word for key, word in said.items() if word and word != unsaid(key)}
    if kept.get("size") == NO_LESION:
        kept = {key: word for key, word in kept.items() if key not in NEEDS_LESION}
    if kept.get("shape") == scales.SHAPE.words[0] and "orientation" not in meant:
        kept.pop("orientation", None)
    return kept


def nearest(word: str, known: Collection[str]) -> str:
    """A hint at what was meant; empty where nothing is near."""
    spoken = {DIAGNOSES.get(name, name): name for name in known}
    near = difflib.get_close_matches(word, [*known, *spoken], n=1, cutoff=0.5)
    if not near:
        return ""
    return f"; did you mean '{spoken.get(near[0], near[0])}'?"


def facts(key: str, modality: str) -> tuple[str, ...]:
    """What a fact can be where it is one of a few words; nothing where it is unsaid."""
    if modality != "dermoscopy":
        return ()
    table = {
        "localization": LOCALIZATIONS,
        "sex": tuple(sorted(name for name in PEOPLE if name)),
    }
    return table.get(key, ())


def modality_of(prompt: str, label: str, among: Collection[str]) -> str:
    """The one modality among several that a prompt or its class belongs to.

    The prompt's own words come first ("a breast ultrasound image of ..."), then the
    class, where the published datasets of just one of the modalities have it.

    Returns:
        Its name; empty where neither tells, or the two disagree.
    """
    if len(among) == 1:
        return next(iter(among))
    text = prompt.lower()
    said = {one for one in among if one and IMAGES[one] in text}
    classed = {one for one in among if label and label in CLASSES[one]}
    found = said & classed if said and classed else said or classed
    return found.pop() if len(found) == 1 else ""


def _positions() -> tuple[str, ...]:
    return tuple(
        "centre" if (row, column) == ("middle", "central") else f"{row} {column}"
        for row in scales.ROW.words
        for column in scales.COLUMN.words
    )


def _corners(modality: str) -> tuple[str, ...]:
    """Two sides at once."""
    if modality == "ultrasound":
        return ()
    return tuple(
        f"{one} and {other}" for one in scales.SIDES[:2] for other in scales.SIDES[2:]
    )


def _named(names: Collection[colour.Named]) -> tuple[str, ...]:
    return tuple(named.word for named in names)
