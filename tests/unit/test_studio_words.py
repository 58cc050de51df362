"""The studio's pickers: every word is one that captions of the modality can say."""

import re

import pytest

from vgmedgen.data.attributes import NO_LESION
from vgmedgen.data.captions import vocabulary
from vgmedgen.data.records import MODALITIES, Dataset, Record
from vgmedgen.studio.words import CLASSES, PERSON, classes, pickers, sentence
from vgmedgen.synthesis import choices


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_choice_is_a_word_that_captions_are_made_of(modality):
    known = set(vocabulary())
    chosen = {
        p.key: p.choices for p in pickers(modality) if p.key not in {"age", "sex"}
    }
    said = {word for words in chosen.values() for word in words}
    assert len(said) > 30
    assert {w for text in said for w in re.findall("[a-z]+", text)} <= known


@pytest.mark.parametrize("modality", [m for m in MODALITIES if m])
def test_every_choice_is_heard_in_the_sentence(modality):
    label = CLASSES[modality][0]
    for picker in pickers(modality):
        for word in picker.choices:
            text = sentence(modality, label, {picker.key: word})
            plain = sentence(modality, label, {})
            assert text != plain, (picker.key, word)
            if picker.key not in PERSON:
                assert word in text


def test_the_sentence_has_the_three_clauses_of_a_caption():
    chosen = {"size": "small", "position": "upper left", "colour": "brown"}
    told = sentence("dermoscopy", "mel", {**chosen, "sex": "female", "age": "60s"})
    assert told == (
        "dermoscopic image of a melanoma of a woman in her sixties; "
        "small lesion, upper left; brown"
    )


def test_normal_tissue_has_no_mass_whatever_else_is_chosen():
    chosen = {
        "size": "large",
        "shape": "round",
        "colour": "anechoic",
        "depth": "even gain",
    }
    told = sentence("ultrasound", "normal", chosen)
    assert told == "breast ultrasound image of normal breast tissue; no mass; even gain"


def test_a_class_that_only_this_site_has_can_be_picked():
    from pathlib import Path

    record = Record("1", Path("1.png"), (), "1", "lentigo_maligna", {})
    dataset = Dataset("table", "dermoscopy", "lesion", (record,))
    found = classes((dataset,), "dermoscopy")
    assert ("lentigo maligna", "lentigo_maligna") in found
    assert ("melanoma", "mel") in found
    assert classes((dataset,), "endoscopy") == [("polyp", "polyp")]


def test_all_modalities_have_the_same_keys_in_the_same_order():
    keys = {tuple(p.key for p in pickers(modality)) for modality in MODALITIES}
    assert len(keys) == 1


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_studio_offers_the_words_that_a_plan_takes(modality):
    offered = {p.key: p.choices for p in pickers(modality) if p.key not in PERSON}
    for key, words in offered.items():
        taken = [word for word in choices.words(key, modality) if word != NO_LESION]
        assert list(words) == taken
    assert set(offered) >= set(choices.attributes(modality))
