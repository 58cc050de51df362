"""Captions made from a record's facts and the words measured in its picture.

A caption has three clauses, divided by semicolons: what is shown, its anatomy (number,
size, shape, place, border) and its style (colour, texture, contrast, light). The same
record and words always give the same sentence.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from vgmedgen.data import colour, scales
from vgmedgen.data.attributes import NO_LESION
from vgmedgen.data.records import Record

DIAGNOSES = {
    "akiec": "actinic keratosis",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
    "benign": "benign mass",
    "malignant": "malignant mass",
    "normal": "normal breast tissue",
    "polyp": "polyp",
    "": "lesion",
}
UNCOUNTED = frozenset({"normal"})  # said without an article
PLACES = {"acral": "acral skin", "genital": "genital skin"}  # else "the <place>"
LOCALIZATIONS = (
    *("abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand"),
    *("lower extremity", "neck", "scalp", "trunk", "upper extremity"),
)
DECADE, OLDEST = 10, 120  # years
DECADES = (  # from the first decade on
    *("teens", "twenties", "thirties", "forties", "fifties", "sixties"),
    *("seventies", "eighties", "nineties"),
)
PEOPLE = {"male": ("man", "his"), "female": ("woman", "her"), "": ("patient", "their")}
CHILDREN = {"male": "boy", "female": "girl", "": "child"}  # below 10 years
IMAGES = {
    "dermoscopy": "dermoscopic image",
    "ultrasound": "breast ultrasound image",
    "endoscopy": "endoscopic image",
    "": "medical image",
}
TISSUES = {
    "dermoscopy": "skin",
    "ultrasound": "tissue",
    "endoscopy": "mucosa",
    "": "surround",
}
LESIONS = {"dermoscopy": "lesion", "ultrasound": "mass", "endoscopy": "polyp"}
LESIONS[""] = "lesion"
PLURALS = {"lesion": "lesions", "mass": "masses", "polyp": "polyps"}
GRAMMAR = "a an and border contrast darker depth focus image in no of on the tint with"


class Clauses(NamedTuple):
    """The three parts of a caption."""

    subject: str
    anatomy: str
    style: str


def caption(record: Record, modality: str, words: Mapping[str, str]) -> str:
    """One sentence of at most about 45 words.

    Args:
        record: Its label and facts are said.
        modality: dermoscopy, ultrasound, endoscopy, or empty.
        words: From `vgmedgen.data.attributes.words`; empty ones are left unsaid.
    """
    return "; ".join(part for part in clauses(record, modality, words) if part)


def clauses(record: Record, modality: str, words: Mapping[str, str]) -> Clauses:
    """The caption in its three parts (arguments as of `caption`)."""
    said = {key: value for key, value in words.items() if value}
    subject = f"{IMAGES[modality]} of {_diagnosis(record.label)}{_whose(record.facts)}"
    return Clauses(subject, _anatomy(said, modality), _style(said, modality))


def vocabulary() -> list[str]:
    """Every word that a caption can hold, lower case, sorted, without punctuation.

    Labels and localizations that no published dataset here uses are not among them.
    """
    return sorted({word for text in _texts() for word in re.findall(r"[a-z]+", text)})


def _diagnosis(label: str) -> str:
    named = DIAGNOSES.get(label, label.replace("_", " ").lower())
    if label in UNCOUNTED:
        return named
    return f"{'an' if named[0] in 'aeiou' else 'a'} {named}"


def _whose(facts: Mapping[str, str]) -> str:
    """Where on the body and of whom, as far as the facts say."""
    place = facts.get("localization", "")
    on = (
        f" on {PLACES.get(place, f'the {place}')}"
        if place not in {"", "unknown"}
        else ""
    )
    sex = facts.get("sex", "") if facts.get("sex", "") in PEOPLE else ""
    person, whose = PEOPLE[sex]
    age = _age(facts.get("age", ""))
    if age is None:
        return f"{on} of a {person}" if sex else on
    if age < DECADE:
        return f"{on} of a {CHILDREN[sex]}"
    decade = DECADES[min(age // DECADE, len(DECADES)) - 1]
    return f"{on} of a {person} in {whose} {decade}"


def _age(told: str) -> int | None:
    """Whole years, or None where the table does not say."""
    try:
        age = float(told)
    except ValueError:
        return None
    # the tables write 0 for infants and for unknown; neither is worth a guess
    return int(age) if 0 < age < OLDEST else None


def _anatomy(said: Mapping[str, str], modality: str) -> str:
    if said.get("size") == NO_LESION:
        return f"no {LESIONS[modality]}"
    several = "number" in said
    noun = PLURALS[LESIONS[modality]] if several else LESIONS[modality]
    order = ("number", "size", "outline", "shape")
    first = " ".join([*(said[key] for key in order if key in said), noun])
    border = f"{said['border']} border" if "border" in said else ""
    rest = (said.get("orientation"), said.get("position"), border)
    return ", ".join([first, *(part for part in rest if part)])


def _style(said: Mapping[str, str], modality: str) -> str:
    parts = (
        said.get("colour"),
        said.get("texture"),
        f"{said['contrast']} contrast" if "contrast" in said else "",
        said.get("posterior"),
        f"{said['tone']} {TISSUES[modality]}" if "tone" in said else "",
        f"{said['light']} image" if "light" in said else "",
        f"{said['cast']} tint" if "cast" in said else "",
        said.get("depth"),
        f"{said['grain']} focus" if "grain" in said else "",
        said.get("frame"),
        f"darker {said['shading']}" if "shading" in said else "",
    )
    return ", ".join(part for part in parts if part)


def _texts() -> Iterator[str]:
    """Every phrase of the grammar."""
    yield from (GRAMMAR, NO_LESION, *LOCALIZATIONS, *PLACES.values(), *DECADES)
    for table in (DIAGNOSES, CHILDREN, IMAGES, TISSUES, LESIONS, PLURALS):
        yield from table.values()
    for person in PEOPLE.values():
        yield from person
    for names in (colour.SKIN_LESION, colour.POLYP, colour.SKIN_CAST):
        yield from (named.word for named in names)
    yield from (named.word for named in colour.MUCOSA_CAST)
    yield from scales.phrases()
