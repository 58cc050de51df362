"""What a clinician can choose from, and the caption that the choice makes.

The captions are those that the model was trained on: the same words in the same order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vgmedgen.data import colour, scales
from vgmedgen.data.attributes import ANATOMY, CASTS, COLOURS, NO_LESION, STYLE
from vgmedgen.data.captions import DIAGNOSES, LOCALIZATIONS, UNCOUNTED, caption
from vgmedgen.data.records import Dataset, Record

CLASSES = {
    "dermoscopy": ("nv", "mel", "bkl", "bcc", "akiec", "vasc", "df"),
    "ultrasound": ("benign", "malignant", "normal"),
    "endoscopy": ("polyp",),
    "": (),
}
"""Labels of the published datasets, the frequent ones first."""
PERSON = ("localization", "sex", "age")
NEEDS_LESION = frozenset({*ANATOMY, "colour", "contrast", "posterior"})
TITLES = {"tone": "surround", "cast": "tint", "grain": "focus", "depth": "gain"}
AGES = {f"{decade}s": str(decade + 5) for decade in range(10, 100, 10)}


@dataclass(frozen=True)
class Picker:
    """One thing to choose: its key, what it is called, and the words there are."""

    key: str
    group: str  # anatomy, style or person
    title: str
    choices: tuple[str, ...]  # empty: nothing to choose for this modality


def classes(datasets: tuple[Dataset, ...], modality: str) -> list[tuple[str, str]]:
    """Pairs of name and label: what the modality knows, then what only this site has."""
    own = {
        record.label
        for dataset in datasets
        if dataset.modality == modality
        for record in dataset.records
        if record.label
    }
    known = CLASSES[modality]
    labels = [*known, *sorted(own - set(known))]
    return [(DIAGNOSES.get(label, label.replace("_", " ")), label) for label in labels]


def pickers(modality: str) -> list[Picker]:
    """Everything that a caption of the modality can say, in a fixed order of keys."""
    found = []
    for group, keys in (("anatomy", ANATOMY), ("style", STYLE), ("person", PERSON)):
        for key in keys:
            said = tuple(word for word in _choices(key, modality) if word)
            title = TITLES.get(key, key).capitalize()
            found.append(Picker(key, group, title, said))
    return found


def sentence(modality: str, label: str, chosen: Mapping[str, str]) -> str:
    """The caption of a class and what was chosen by picker key; the rest is unsaid."""
    said = {key: word for key, word in chosen.items() if word and key not in PERSON}
    if label in UNCOUNTED:
        said = {key: word for key, word in said.items() if key not in NEEDS_LESION}
        said["size"] = NO_LESION
    facts = {key: chosen[key] for key in PERSON if chosen.get(key)}
    if "age" in facts:
        facts["age"] = AGES.get(facts["age"], facts["age"])
    record = Record("asked", Path(), (), "asked", label, facts)
    return caption(record, modality, said).rstrip("; ")


def _choices(key: str, modality: str) -> tuple[str, ...]:
    """Words of one key; none where the modality does not say it."""
    look, ultrasound = scales.LOOKS[modality], modality == "ultrasound"
    names = COLOURS.get(modality, colour.SKIN_LESION)
    casts = CASTS.get(modality, colour.SKIN_CAST)
    sides = scales.SIDES if not ultrasound else ("leftward", "rightward")
    table: dict[str, tuple[str, ...]] = {
        "number": scales.NUMBER.words,
        "size": scales.SIZE.words,
        "shape": scales.SHAPE.words,
        "outline": scales.OUTLINE.words,
        "orientation": tuple(dict.fromkeys(scales.ORIENTATION.words)),
        "position": _positions(),
        "border": scales.BORDER.words,
        "colour": ("anechoic", *scales.ECHO.words) if ultrasound else _named(names),
        "texture": scales.TEXTURE.words,
        "contrast": scales.CONTRAST.words,
        "posterior": scales.POSTERIOR.words if ultrasound else (),
        "tone": look.tone.words,
        "light": look.light.words,
        "cast": () if ultrasound else _named(casts),
        "depth": scales.DEPTH.words if ultrasound else (),
        "grain": look.grain.words,
        "frame": ("black inset",) if modality == "endoscopy" else ("dark corners",),
        "shading": sides,
        "localization": LOCALIZATIONS if modality == "dermoscopy" else (),
        "sex": ("female", "male") if modality == "dermoscopy" else (),
        "age": tuple(AGES) if modality == "dermoscopy" else (),
    }
    return table[key]


def _positions() -> tuple[str, ...]:
    return tuple(
        "centre" if (row, column) == ("middle", "central") else f"{row} {column}"
        for row in scales.ROW.words
        for column in scales.COLUMN.words
    )


def _named(names: tuple[colour.Named, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(named.word for named in names if named.word))
