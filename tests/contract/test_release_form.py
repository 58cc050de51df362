"""Freezes the form of a release: whoever changes it raises `facts.FORM` and adds a line."""

import hashlib
import json

import pytest
from safetensors import safe_open

from tests.releases import make
from vgmedgen.release import card as cards
from vgmedgen.release import facts

DIGESTS = {
    1: "a8cc0fd6030fee5206155cb97158daba35c1cd33c17479c006d6f222ca341791",
    2: "43bc519c1b296135fe86e83d4b63525a1b4b3841d7330412ed9b6e37865727aa",
}
"""Every form that there was; a hospital may still hold releases of each."""

SAME = {
    "run": "r-1",
    "experiment": "demo",
    "config": "c" * 64,
    "base": "b" * 64,
    "plan": "d" * 64,
    "exchange": "e" * 64,
    "image_px": 64,
    "rounds": 5,
    "align_rounds": 2,
    "generate_rounds": 3,
    "base_source": "drawn",
    "base_licence": "MIT",
    "sites": ["a", "b"],
}
CLAIM = {"epsilon": 6.0, "delta": 1e-5, "unit": "patient", "spent": {}}
METRICS = {"training_loss": 0.5, "heldout_loss": 0.625}
TOLD = {
    "bare": {},
    "one site": {"sites": ["a"], "data": {"a": "20-49"}},
    "no licence told": {"base_licence": "", "base_source": ""},
    "metrics": {"metrics": METRICS},
    "private": {"privacy": CLAIM},
    "private, image by image": {"privacy": CLAIM | {"unit": "image"}},
    "spending told": {"privacy": CLAIM | {"spent": {"a": 5.25, "b": 1}}},
}


@pytest.fixture(scope="module")
def made(bundle, micro, tmp_path_factory):
    return make(tmp_path_factory.mktemp("form") / "release", bundle, micro.plan)


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def names_in(told, before=""):
    """The names of a JSON object, those of the objects within it too."""
    found = []
    for name, value in told.items():
        found.append(f"{before}{name}")
        if isinstance(value, dict):
            found += names_in(value, f"{before}{name}.")
    return found


def form_of(made):
    """Everything that decides the bytes of a release beside its tensors and facts."""
    lines = [
        f"given     {' '.join(facts.GIVEN)}",
        f"derived   {' '.join(sorted(facts.DERIVED))}",
        f"metrics   {' '.join(facts.METRICS)}",
        f"ranges    {' '.join(facts.RANGES)}",
        *(f"words     {name} {form}" for name, form in sorted(facts._WORDS.items())),
        *(
            f"card      {kind}: {digest(cards.card(SAME | t))}"
            for kind, t in TOLD.items()
        ),
    ]
    for path in sorted(p for p in made.folder.rglob("*") if p.is_file()):
        lines.append(f"file      {path.relative_to(made.folder).as_posix()}")
        if path.suffix == ".safetensors":
            with safe_open(path, "np") as held:
                names = sorted(held.keys())
                lines.append(f"  tensors {digest(' '.join(names))} {held.metadata()}")
        # the mapper's config is the base's own, and a base has a digest
        elif path.suffix == ".json" and path.parent.name != "text_mapper":
            told = json.loads(path.read_text())
            told.pop("files", None)
            lines.append(f"  names   {' '.join(names_in(told))}")
    return "\n".join(lines)


def test_a_release_has_the_form_that_its_number_says(made):
    assert made.manifest["form"] == facts.FORM
    told = form_of(made)
    assert digest(told) == DIGESTS.get(facts.FORM), (
        f"the form of a release is another now: raise facts.FORM and add to DIGESTS "
        f"the digest {digest(told)} of\n{told}"
    )


def test_the_present_form_is_the_last_one_and_no_two_are_alike():
    assert max(DIGESTS) == facts.FORM
    assert len(set(DIGESTS.values())) == len(DIGESTS)


@pytest.mark.parametrize("text", ["TEXT", "WITHOUT", "WITH", "HISTORY", "GATE"])
def test_a_card_that_is_worded_differently_has_another_form(made, monkeypatch, text):
    before = form_of(made)
    words = getattr(cards, text)
    monkeypatch.setattr(cards, text, f"{words} And more.")
    assert form_of(made) != before
