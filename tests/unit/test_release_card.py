"""The model card of a release: what model hubs read, and what it promises."""

import dataclasses

import pytest
import torch
import yaml

from tests.releases import FACTS, make
from vgmedgen.release.write import write
from vgmedgen.training.rounds import Workbench


@pytest.fixture(scope="module")
def made(bundle, micro, tmp_path_factory):
    """A signed release; read it, do not write."""
    return make(tmp_path_factory.mktemp("made") / "release", bundle, micro.plan)


def front(card):
    _, matter, body = card.split("---\n", 2)
    return yaml.safe_load(matter), body


def test_the_card_is_one_that_model_hubs_read(made, bundle):
    matter, body = front((made.folder / "README.md").read_text())
    assert matter["library_name"] == "diffusers"
    assert matter["pipeline_tag"] == "text-to-image"
    assert matter["license"] == "other"
    assert matter["base_model"] == f"base-{bundle.digest[:16]}"
    assert "lora" in matter["tags"]
    titles = [line[3:] for line in body.splitlines() if line.startswith("## ")]
    assert titles == [
        "Intended use",
        "Out of scope",
        "Data",
        "Training",
        "Metrics",
        "Privacy",
        "Limits",
        "Verify and install",
        "Licence",
    ]
    for said in ("| `a` | 20-49 |", "images | 0.625", "`r-1`", "nothing is promised"):
        assert said in body
    assert str(bundle.manifest["licence"]) in body


def test_the_card_of_a_private_release_says_what_epsilon_does_not_cover(
    bundle, private_micro, tmp_path
):
    plan = private_micro.plan
    bench = Workbench.open(bundle, plan, torch.device("cpu"))
    claim = {
        "epsilon": plan.privacy.epsilon,
        "delta": plan.privacy.delta,
        "unit": plan.privacy.unit,
        "spent": {"a": 5.25},
    }
    told = {k: v for k, v in FACTS.items() if k != "metrics"} | {"privacy": claim}
    write(tmp_path / "r", bundle, plan, bench.states(), told, bench)
    body = (tmp_path / "r" / "README.md").read_text()
    for said in (
        "epsilon at most 6, image-level (a patient",
        "against anybody who",
        "(replace-one adjacency) it is worth half: epsilon 12, delta 0.004",
        "not covered by epsilon",
        "| `a` | 5.25 |",
        "differential privacy covers no loss",
    ):
        assert said in body
    assert "nothing is promised" not in body
    assert "per image" not in body
    assert "can tell of an image from elsewhere" in body


def test_a_hostile_licence_of_a_base_stays_words(bundle, micro, made, tmp_path):
    said = "MIT\n---\n# Approved <script>x</script> ![](http://x) | `rm` *b* [a](b)"
    other = dataclasses.replace(bundle, manifest={**bundle.manifest, "licence": said})
    write(tmp_path / "r", other, micro.plan, made.weights, FACTS)
    card = (tmp_path / "r" / "README.md").read_text()
    _, body = front(card)
    assert "<script" not in card
    assert "](" not in card
    assert "\n# Approved" not in body
