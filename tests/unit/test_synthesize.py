"""Synthesis from an installed release: same seed same image, and every origin told."""

import csv

import pytest
from PIL import Image

from vgmedgen.errors import ConfigError, ReleaseError
from vgmedgen.release.install import current, install
from vgmedgen.release.verify import digest
from vgmedgen.release.write import write
from vgmedgen.synthesis.generate import read_prompts, synthesize
from vgmedgen.training.rounds import Workbench

PROMPTS = ["a small brown lesion", "a large pale polyp", "no mass"]
ASK = {"steps": 2, "guidance": 2.0}


@pytest.fixture(scope="module")
def model(bundle, micro, tmp_path_factory):
    import torch

    folder = tmp_path_factory.mktemp("installed")
    weights = Workbench.open(bundle, micro.plan, torch.device("cpu")).states()
    facts = {
        "run": "r",
        "experiment": "demo",
        "config": "c" * 64,
        "rounds": 2,
        "align_rounds": 1,
        "generate_rounds": 1,
        "sites": ["a"],
    }
    told = write(folder / "release", bundle, micro.plan, weights, facts)
    name = install(folder / "releases", bundle, micro.plan, weights, told)
    assert name == digest(told)
    return current(folder / "releases"), name


def test_the_same_seed_draws_the_same_image_whatever_the_batch(model, tmp_path):
    folder, _ = model
    together = synthesize(folder, PROMPTS, tmp_path / "a", seed=5, batch=3, **ASK)
    alone = synthesize(folder, PROMPTS, tmp_path / "b", seed=5, batch=1, **ASK)
    for one, other in zip(together, alone, strict=True):
        pixels = [list(Image.open(d.image).getdata()) for d in (one, other)]
        apart = max(
            abs(p - q)
            for a, b in zip(*pixels, strict=True)
            for p, q in zip(a, b, strict=True)
        )
        assert apart <= 1  # of 255: float rounding may differ by batch
    again = synthesize(folder, PROMPTS, tmp_path / "c", seed=5, batch=3, **ASK)
    assert [d.image.read_bytes() for d in again] == [
        d.image.read_bytes() for d in together
    ]


def test_another_seed_draws_another_image(model, tmp_path):
    folder, _ = model
    one = synthesize(folder, PROMPTS[:1], tmp_path / "a", seed=5, batch=1, **ASK)
    two = synthesize(folder, PROMPTS[:1], tmp_path / "b", seed=6, batch=1, **ASK)
    assert one[0].image.read_bytes() != two[0].image.read_bytes()


def test_the_table_names_prompt_seed_and_model_of_every_image(model, tmp_path):
    folder, name = model
    counted = []
    synthesize(
        folder, PROMPTS, tmp_path, seed=9, batch=2, progress=counted.append, **ASK
    )
    with (tmp_path / "images.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["prompt"] for row in rows] == PROMPTS
    assert [int(row["seed"]) for row in rows] == [9, 10, 11]
    assert {row["model"] for row in rows} == {name}
    assert {row["cleared"] for row in rows} == {"no"}
    assert counted == [2, 1]
    told = Image.open(tmp_path / rows[0]["image"]).text
    assert told["Description"] == PROMPTS[0]
    assert "synthetic" in told["Source"]


def test_a_used_folder_and_a_folder_that_is_no_release_are_refused(model, tmp_path):
    folder, _ = model
    synthesize(folder, PROMPTS[:1], tmp_path / "out", seed=0, batch=1, **ASK)
    with pytest.raises(ConfigError, match="choose another folder"):
        synthesize(folder, PROMPTS[:1], tmp_path / "out", seed=0, batch=1, **ASK)
    with pytest.raises(ReleaseError, match="no installed release"):
        synthesize(tmp_path, PROMPTS[:1], tmp_path / "o", seed=0, batch=1, **ASK)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.csv", "text\na\n", "no column 'prompt'"),
        ("p.csv", "prompt\na\n \n", "prompt 2 is empty"),
        ("p.csv", "prompt\n", "no prompt"),
        ("p.txt", "a\n\nb\n", "prompt 2 is empty"),
    ],
)
def test_bad_prompt_files_are_refused_with_their_row(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_prompts(tmp_path / name)


def test_prompts_are_read_from_csv_and_text_alike(tmp_path):
    (tmp_path / "p.csv").write_text('id,prompt\n1,"a, b"\n2,c\n')
    (tmp_path / "p.txt").write_text("a, b\nc\n")
    assert read_prompts(tmp_path / "p.csv") == read_prompts(tmp_path / "p.txt")
    with pytest.raises(ConfigError, match="no prompt file"):
        read_prompts(tmp_path / "absent.csv")
