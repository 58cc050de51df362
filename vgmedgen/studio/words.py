"""What a clinician can choose from, and the caption that the choice makes.

The captions are those that the model was trained on: the same words in the same order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vgmedgen.data.attributes import ANATOMY, NO_LESION, STYLE
from vgmedgen.data.captions import DIAGNOSES, UNCOUNTED, caption
from vgmedgen.data.records import Dataset, Record
from vgmedgen.synthesis import choices
from vgmedgen.synthesis.choices import CLASSES
from vgmedgen.synthesis.choices import FACTS as PERSON

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
            title = TITLES.get(key, key).capitalize()
            found.append(Picker(key, group, title, _words(key, modality)))
    return found


def sentence(modality: str, label: str, chosen: Mapping[str, str]) -> str:
    """The caption of a class and what was chosen by picker key; the rest is unsaid."""
    given = {key: word for key, word in chosen.items() if word and key not in PERSON}
    if label in UNCOUNTED:
        given["size"] = NO_LESION
    said = choices.agreed({}, given)
    facts = {key: chosen[key] for key in PERSON if chosen.get(key)}
    if "age" in facts:
        facts["age"] = AGES.get(facts["age"], facts["age"])
    record = Record("asked", Path(), (), "asked", label, facts)
    return caption(record, modality, said).rstrip("; ")


def _words(key: str, modality: str) -> tuple[str, ...]:
    """Words of one key; none where the modality does not say it."""
    if key == "age":
        return tuple(AGES) if choices.facts("sex", modality) else ()
    if key in PERSON:
        return choices.facts(key, modality)
    # that there is no lesion is said by the class
    return tuple(word for word in choices.words(key, modality) if word != NO_LESION)
