import itertools
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from vgmedgen.data import adapters, colour, images, scales
from vgmedgen.data.attributes import measure, words
from vgmedgen.data.captions import (
    DIAGNOSES,
    IMAGES,
    LOCALIZATIONS,
    caption,
    clauses,
    vocabulary,
)
from vgmedgen.data.records import Record

REAL = Path(os.environ.get("VGMEDGEN_DATA", Path(__file__).parents[3] / "shared/data"))
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
MODALITIES = {"ham10000": "dermoscopy", "busi": "ultrasound", "kvasir-seg": "endoscopy"}
MELANOMA = Record(
    "ISIC_1",
    Path("ISIC_1.jpg"),
    (),
    "HAM_1",
    "mel",
    {"localization": "back", "age": "45.0", "sex": "male"},
)
SAID = {
    "number": "",
    "size": "large",
    "shape": "oval",
    "outline": "irregular",
    "orientation": "vertical",
    "position": "upper left",
    "border": "ill-defined",
    "colour": "dark brown",
    "texture": "mottled",
    "contrast": "high",
    "posterior": "",
    "tone": "fair",
    "light": "bright",
    "cast": "pinkish",
    "depth": "",
    "grain": "soft",
    "frame": "dark corners",
    "shading": "leftward",
}


VOCABULARY = frozenset(vocabulary())


def known(text: str) -> bool:
    return VOCABULARY.issuperset(re.findall(r"[a-z]+", text.lower()))


def test_a_caption_reads_as_a_clinician_would_say_it() -> None:
    assert caption(MELANOMA, "dermoscopy", SAID) == (
        "dermoscopic image of a melanoma on the back of a man in his forties; "
        "large irregular oval lesion, vertical, upper left, ill-defined border; "
        "dark brown, mottled, high contrast, fair skin, bright image, pinkish tint, "
        "soft focus, dark corners, darker leftward"
    )


def test_anatomy_and_style_do_not_mix() -> None:
    here = clauses(MELANOMA, "dermoscopy", SAID)
    moved = clauses(MELANOMA, "dermoscopy", {**SAID, "position": "centre"})
    painted = clauses(MELANOMA, "dermoscopy", {**SAID, "colour": "red"})
    assert (here.style == moved.style, here.anatomy == moved.anatomy) == (True, False)
    assert (here.style == painted.style, here.anatomy == painted.anatomy) == (
        False,
        True,
    )


@pytest.mark.parametrize(
    ("label", "facts", "said"),
    [
        ("akiec", {}, "dermoscopic image of an actinic keratosis"),
        ("mel", {"localization": "unknown", "sex": "unknown"}, "of a melanoma"),
        ("nv", {"localization": "genital"}, "melanocytic nevus on genital skin"),
        ("vasc", {"age": "5.0", "sex": "female"}, "vascular lesion of a girl"),
        ("bkl", {"age": "85", "sex": "female"}, "of a woman in her eighties"),
        ("bkl", {"age": "104"}, "of a patient in their nineties"),
        ("bkl", {"age": "0.0"}, "of a benign keratosis"),
        ("bkl", {"age": "old"}, "of a benign keratosis"),
        ("df", {"sex": "male"}, "of a dermatofibroma of a man"),
        ("", {}, "of a lesion"),
        ("Spitz_nevus", {}, "of a spitz nevus"),
    ],
)
def test_the_subject_says_what_the_table_knows(
    label: str, facts: dict[str, str], said: str
) -> None:
    record = replace(MELANOMA, label=label, facts=facts)
    assert clauses(record, "dermoscopy", SAID).subject.endswith(said)


def test_normal_tissue_has_no_lesion_and_needs_no_article() -> None:
    record = replace(MELANOMA, label="normal", facts={})
    nothing = {**dict.fromkeys(SAID, ""), "size": "no lesion", "light": "dim"}
    assert caption(record, "ultrasound", nothing) == (
        "breast ultrasound image of normal breast tissue; no mass; dim image"
    )


def test_several_lesions_are_said_in_the_plural() -> None:
    record = replace(MELANOMA, label="polyp", facts={})
    found = clauses(record, "endoscopy", {**SAID, "number": "two"})
    assert found.anatomy.startswith("two large irregular oval polyps, ")


def test_the_vocabulary_holds_every_word_of_the_grammar() -> None:
    listed = vocabulary()
    assert listed == sorted(set(listed))
    tables = (colour.SKIN_LESION, colour.POLYP, colour.SKIN_CAST, colour.MUCOSA_CAST)
    phrases = [*scales.phrases(), *(named.word for t in tables for named in t)]
    assert all(known(phrase) for phrase in phrases)
    people = itertools.product(["male", "female", ""], ["3", "15", "44", "99", ""])
    for (sex, age), modality in itertools.product(people, IMAGES):
        for label, place in itertools.product(DIAGNOSES, LOCALIZATIONS):
            facts = {"sex": sex, "age": age, "localization": place}
            record = replace(MELANOMA, label=label, facts=facts)
            assert known(caption(record, modality, {**SAID, "number": "several"}))


@real
@pytest.mark.parametrize("name", list(MODALITIES))
def test_real_captions_are_short_known_and_told_apart(name: str) -> None:
    modality = MODALITIES[name]
    records = adapters.read(name, REAL / name).records[::25]
    said = [
        caption(record, modality, words(measure(*images.load(record, 64)), modality))
        for record in records
    ]
    assert all(known(text) for text in said)
    assert max(len(text.split()) for text in said) <= 48
    assert len(set(said)) > 0.9 * len(said)
    again = words(measure(*images.load(records[0], 64)), modality)
    assert caption(records[0], modality, again) == said[0]
