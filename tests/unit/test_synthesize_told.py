"""What a job tells beside its images: progress, the kind of machine, the modality."""

import dataclasses
import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.gated import install_base, make_site
from tests.releases import contents
from vgmedgen.site.folder import Site
from vgmedgen.synthesis import choices, state
from vgmedgen.synthesis.asked import Ask
from vgmedgen.synthesis.job import Options, model_of, synthesize
from vgmedgen.synthesis.provenance import read_back

QUICK = Options(steps=2)
ASKS = [Ask(number=k, prompt=f"lesion {k}", seed=40 + k) for k in range(11)]


def run(site: Site, out: Path, asks=ASKS, options=QUICK, **more):
    return synthesize(site, model_of(site), asks, out, options, **more)


def test_the_bars_tell_of_the_gate_and_of_the_images(bundle, micro, tmp_path):
    site = make_site(tmp_path / "site", bundle)
    install_base(site, micro.plan)
    seen: dict[str, list[int]] = {}

    @contextmanager
    def bar(what, total):
        seen[what] = [total]
        yield seen[what].append

    run(site, tmp_path / "out", bar=bar)
    (opening, drawing) = seen
    images = len(site.training) + len(site.heldout)
    assert opening == f"Opening the release gate: {images} images of this site"
    assert drawing == "drawing"
    for total, *steps in seen.values():  # each bar ends where it is full
        assert sum(steps) == total
        assert len(steps) > 1
    seen.clear()
    lines = tmp_path / "out/.job/verdicts.jsonl"
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(keepends=True)[:4]))
    run(site, tmp_path / "out", bar=bar, resume=True)
    assert seen["drawing"] == [11, 4, 7]
    seen.clear()
    run(site, tmp_path / "out", bar=bar, resume=True)
    assert "drawing" not in seen


def test_a_job_tells_the_kind_of_machine_and_goes_on_on_another(
    clinic, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    run(clinic, out)
    expected = contents(out)
    (first,) = json.loads((out / "job.json").read_text())["machines"]
    assert first["threads"] == 1
    assert first["torch"] == torch.__version__
    assert set(first) == {"device", "capability", "threads", "torch", "cuda"}
    assert os.uname().nodename not in json.dumps(first)
    other = {**first, "threads": 64}
    with monkeypatch.context() as patched:
        patched.setattr(state, "machine", lambda device: other)
        run(clinic, out, resume=True)
        run(clinic, out, resume=True)
    told = json.loads((out / "job.json").read_text())
    assert told["machines"] == [first, other]
    assert told["counts"]["drawn"] == 11
    again = contents(out)
    assert again.pop("job.json") != expected.pop("job.json")
    assert again == expected  # pixels and tables know nothing of it


def test_a_job_of_an_earlier_version_that_told_no_machine_goes_on(clinic, tmp_path):
    out = tmp_path / "out"
    run(clinic, out)
    expected = contents(out)
    told = json.loads((out / "job.json").read_text())
    del told["machines"], told["counts"]
    (out / "job.json").write_text(json.dumps(told))
    run(clinic, out, resume=True)
    assert contents(out) == expected


def test_at_a_site_of_two_modalities_each_image_tells_its_own(
    clinic, tmp_path, monkeypatch
):
    two = [dataclasses.replace(one, modality="ultrasound") for one in clinic.datasets]
    monkeypatch.setitem(vars(clinic), "datasets", (*clinic.datasets, *two))
    asks = [
        Ask(number=0, prompt="dermoscopic image of a melanoma", seed=1),
        Ask(number=1, prompt="large mass", seed=2, label="malignant"),
        Ask(number=2, prompt="something", seed=3),
    ]
    run(
        clinic,
        tmp_path / "out",
        asks=asks,
        options=dataclasses.replace(QUICK, dicom=True),
    )
    told = [
        read_back(path)["modality"]
        for path in sorted((tmp_path / "out").rglob("0000?.png"), key=lambda p: p.name)
    ]
    assert told == ["dermoscopy", "ultrasound", ""]


@pytest.mark.parametrize(
    ("prompt", "label", "among", "told"),
    [
        ("anything", "", ["endoscopy"], "endoscopy"),
        (
            "Breast ultrasound image of a mass",
            "",
            ["dermoscopy", "ultrasound"],
            "ultrasound",
        ),
        ("a lesion", "mel", ["dermoscopy", "ultrasound"], "dermoscopy"),
        ("a lesion", "mel", ["endoscopy", "ultrasound"], ""),
        ("breast ultrasound image", "mel", ["dermoscopy", "ultrasound"], ""),
        ("an endoscopic image", "own class", ["", "endoscopy"], "endoscopy"),
        ("a lesion", "", ["dermoscopy", "ultrasound"], ""),
        ("a lesion", "", [], ""),
    ],
)
def test_the_modality_follows_from_words_and_class_or_is_left_open(
    prompt, label, among, told
):
    assert choices.modality_of(prompt, label, among) == told
