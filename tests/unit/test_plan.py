"""Synthesis plans: counts, attributes, balance, and what is said of a wrong one."""

from collections import Counter

import pytest

from vgmedgen.data.captions import vocabulary
from vgmedgen.errors import ConfigError
from vgmedgen.site.folder import Site
from vgmedgen.synthesis import choices
from vgmedgen.synthesis.plan import Seen, SynthesisPlan, read_plan, seen_at, wishes_of

WORDS = [
    {"size": "small", "colour": "brown", "texture": "mottled", "border": "sharp"},
    {"size": "large", "colour": "black", "texture": "homogeneous", "border": ""},
]
SEEN = Seen(
    modality="dermoscopy",
    labels={"mel": 3, "nv": 10, "vasc": 1},
    words={"mel": WORDS, "nv": WORDS},
    known=("nv", "mel", "vasc", "bkl", "rash"),
)


@pytest.fixture
def write(tmp_path):
    def to(text: str):
        path = tmp_path / "plan.yaml"
        path.write_text(text)
        return path

    return to


def captions(path, seed: int = 0, seen: Seen = SEEN) -> list[str]:
    return [wish.prompt for wish in wishes_of(read_plan(path, seen), seen, seed)]


def labels(path, seen: Seen = SEEN) -> Counter[str]:
    return Counter(wish.label for wish in wishes_of(read_plan(path, seen), seen, 0))


def test_a_class_gets_its_count_and_every_combination_in_turn(write):
    path = write(
        "classes:\n  mel: {count: 8, size: [small, large], colour: [red, black]}\n"
        "  vasc: 2\n"
    )
    assert labels(path) == {"mel": 8, "vasc": 2}
    said = captions(path)[:8]
    for size in ("small", "large"):
        for colour in ("red", "black"):
            assert sum(f" {size} " in t and f"; {colour}," in t for t in said) == 2
    assert all(text.startswith("dermoscopic image of a melanoma;") for text in said)


def test_the_same_seed_gives_the_same_captions_and_another_seed_others(write):
    path = write("classes: {mel: 12}")
    assert captions(path, 1) == captions(path, 1)
    assert captions(path, 1) != captions(path, 2)


def test_what_is_left_open_comes_from_the_site_each_attribute_by_itself(write):
    said = captions(write("classes: {mel: 60}"))
    assert any("small" in text and "black" in text for text in said)  # no record is so
    assert any("large" in text and "brown" in text for text in said)
    assert not any("medium" in text for text in said)  # no record says it at all
    share = sum("small" in text for text in said) / len(said)
    assert 0.2 < share < 0.8


def test_a_class_that_the_site_never_saw_leaves_open_words_unsaid(write):
    assert set(captions(write("classes: {bkl: 3}"))) == {
        "dermoscopic image of a benign keratosis; lesion"
    }


def test_a_word_can_be_left_unsaid_on_purpose(write):
    every = "\n".join(
        f"    {key}: {choices.unsaid(key)}" for key in choices.attributes("dermoscopy")
    )
    path = write(f"classes:\n  mel:\n    count: 2\n{every}\n")
    assert set(captions(path)) == {"dermoscopic image of a melanoma; lesion"}


def test_facts_are_said_in_every_caption(write):
    path = write(
        "classes: {mel: 2, vasc: 1}\n"
        "facts: {localization: back, sex: female, age: 63}\n"
    )
    assert all(" on the back of a woman in her sixties;" in t for t in captions(path))


def test_balance_fills_every_class_up_to_the_most_frequent(write):
    path = write("classes: {mel: 2}\nbalance: true\n")
    have = labels(path) + Counter(SEEN.labels)
    assert have == {"mel": 10, "nv": 10, "vasc": 10}
    assert labels(path)["nv"] == 0


def test_a_cap_on_the_total_serves_the_rarest_class_first(write):
    found = labels(write("balance: true\nmost: 5\n"))
    assert found == {"vasc": 3, "mel": 2}  # 1 and 3 of them were there
    tight = labels(write("classes: {mel: 2}\nbalance: true\nmost: 3\n"))
    assert tight == {"mel": 2, "vasc": 1}


def test_without_a_lesion_there_is_none_to_describe(write):
    path = write("classes: {mel: {count: 4, size: no lesion}}")
    for text in captions(path):
        assert "; no lesion;" in text
        assert "border" not in text
        assert "brown" not in text
        assert "black" not in text
    empty = Seen(
        modality="dermoscopy",
        labels={"mel": 1},
        words={"mel": [{"size": "no lesion"}]},
        known=("mel",),
    )
    path = write("classes: {mel: {count: 1, colour: red}}")
    assert captions(path, seen=empty) == [
        "dermoscopic image of a melanoma; lesion; red"
    ]


def test_a_balanced_site_has_nothing_to_balance(write):
    even = Seen(modality="", labels={"a": 2, "b": 2}, words={}, known=("a", "b"))
    with pytest.raises(ConfigError, match="balanced as they are"):
        wishes_of(SynthesisPlan(balance=True), even, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "classes: {mell: 2}",
            r"no class 'mell'; did you mean 'mel'\?; there are: nv, ",
        ),
        ("classes: {melanoma: 2}", r"no class 'melanoma'; did you mean 'mel'\?"),
        ("classes: {mel: {count: 1, colr: red}}", "did you mean 'colour'"),
        ("classes: {mel: {count: 1, colour: brwn}}", "mel.colour 'brwn'; did you mean"),
        ("classes: {mel: {count: 1, colour: [red, 7]}}", "word for mel.colour '7'"),
        ("classes: {mel: {count: 1, colour: []}}", "mel.colour lists no word"),
        ("classes: {mel: {count: 1, depth: even gain}}", "no attribute of mel 'depth'"),
        ("classes: {mel: {colour: red}}", "the class mel needs a count"),
        ("classes: {mel: 0}", r"mel.count must lie in \[1, 100000\], got 0"),
        ("classes: {mel: -3}", "must lie in"),
        ("classes: {mel: 1000000000000}", "must lie in"),
        ("classes: {mel: {count: many}}", "must be a whole number, got 'many'"),
        ("classes: {mel: {count: true}}", "must be a whole number"),
        ("classes: {mel: 60000, nv: 60000}", "asks for 120000 images"),
        ("classes: {mel: 6}\nmost: 5", "asks for 6 images; the limit is 5"),
        ("classes: [mel]", "must map a class"),
        ("classes: {}", "asks for nothing"),
        ("balance: yes please", "balance must be true or false"),
        ("clases: {mel: 2}", r"no key 'clases'; did you mean 'classes'\?"),
        ("classes: {mel: 2}\nfacts: {localization: bak}", "did you mean 'back'"),
        ("classes: {mel: 2}\nfacts: {localization: [back]}", "must be one word, got"),
        ("classes: {mel: 2}\nfacts: {sex: {a: b}}", "sex must be one word, got"),
        ("classes: {mel: 2}\nfacts: {sex: x}", "no sex 'x'"),
        ("classes: {mel: 2}\nfacts: {age: old}", "age must be a number"),
        ("classes: {mel: 2}\nfacts: {age: .nan}", "age must be a number"),
        ("classes: {mel: 2}\nfacts: {age: 1e9}", "age must lie in"),
        ("classes: {mel: 010}", "must be a whole number, got '010'"),
        ("classes: {mel: 1_0}", "must be a whole number, got '1_0'"),
        ("classes: {mel: 2}\nfacts: {name: Jane}", "no fact 'name'"),
        ("classes: {mel: 2\n", "is not YAML"),
        ("classes: {mel: 2, mel: 3}", "the key 'mel' stands twice"),
        ("a plan", "top level"),
        ("- mel", "top level"),
        ("", "asks for nothing"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line_with_the_file(write, text, says):
    path = write(text)
    with pytest.raises(ConfigError, match=says) as refused:
        captions(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_plan_that_is_absent_binary_or_huge_is_refused(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    (tmp_path / "huge.yaml").write_text("#" * 1_000_001)
    (tmp_path / "deep.yaml").write_text("[" * 5000)
    for name in ("absent", "binary", "huge", "deep"):
        with pytest.raises(ConfigError, match=name):
            read_plan(tmp_path / f"{name}.yaml", SEEN)


@pytest.mark.parametrize("modality", ["dermoscopy", "ultrasound", "endoscopy", ""])
def test_every_word_that_a_plan_may_use_is_one_that_captions_use(modality):
    known = set(vocabulary())
    for key in choices.attributes(modality):
        assert choices.words(key, modality)
        for phrase in choices.words(key, modality):
            spoken = {
                word for word in phrase.replace("-", " ").split() if word.isalpha()
            }
            assert spoken <= known, phrase


def test_a_plan_reads_the_site_that_it_is_for(hospitals, write):
    seen = seen_at(Site(hospitals[0]))
    assert seen.modality == "dermoscopy"
    assert set(seen.labels) <= set(seen.known)
    site = Site(hospitals[0])
    assert sum(seen.labels.values()) == len(site.training)  # held-out ones do not count
    path = write("balance: true\nmost: 30\n")
    said = captions(path, seen=seen)
    assert 1 <= len(said) <= 30
    # also of a class that one patient here has, and no other
    assert min(Counter(r.label for r in site.training.records).values()) == 1
    real = {text.partition("; ")[2] for text in site.training.captions}
    assert not real & {text.partition("; ")[2] for text in said}
