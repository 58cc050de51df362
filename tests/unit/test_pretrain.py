"""A base bundle: built alike by equal seeds, or around a pretrained pipeline."""

import dataclasses
import shutil

from safetensors.torch import load_file

from vgmedgen.base import open_bundle
from vgmedgen.data import adapters
from vgmedgen.data.layouts import write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.dit.objective import Schedule
from vgmedgen.training.pretrain import build
from vgmedgen.training.public import Recipe, build_from_phantoms

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_two_builds_of_one_recipe_have_one_digest(bundle, micro, tmp_path):
    again = build_from_phantoms(tmp_path / "again", micro)
    assert again.digest == bundle.digest
    assert open_bundle(again.folder).digest == bundle.digest


def test_a_base_predicts_what_its_recipe_says_and_its_schedule_tells(
    bundle, micro, tmp_path
):
    assert Schedule.load(bundle.part("scheduler")).predicts == "v_prediction"
    base = dataclasses.replace(micro.base, predicts="epsilon")
    made = build_from_phantoms(
        tmp_path / "noise", dataclasses.replace(micro, base=base)
    )
    assert Schedule.load(made.part("scheduler")).predicts == "epsilon"
    assert made.digest != bundle.digest


def test_a_bundle_around_a_pretrained_pipeline_keeps_its_weights(
    bundle, micro, tmp_path
):
    words = tmp_path / "words"
    shutil.copytree(bundle.part("text_encoder"), words)
    shutil.copytree(bundle.part("tokenizer"), words, dirs_exist_ok=True)
    write_phantoms("ultrasound", tmp_path / "public", 12, 0, 32, tint_of(0))
    public = adapters.read("busi", tmp_path / "public")
    model = dataclasses.replace(
        micro.model, source=str(bundle.folder), text_source=str(words)
    )
    made = build(
        tmp_path / "made", [public], Recipe(model, micro.base, 1, "busi", "CC BY")
    )
    for part in ("vae", "transformer"):
        ours, theirs = (load_file(b.part(part) / WEIGHTS) for b in (made, bundle))
        assert all((ours[name] == theirs[name]).all() for name in theirs)
    hffm = (load_file(b.part("hffm") / WEIGHTS) for b in (made, bundle))
    ours, theirs = hffm
    assert any((ours[name] != theirs[name]).any() for name in theirs)
    assert made.manifest["licence"] == "CC BY"
