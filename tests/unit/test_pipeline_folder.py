"""A pipeline's folder: written, read back here and elsewhere, and never run as code."""

import json
import shutil
import subprocess
import sys

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

import vgmedgen
from tests.pipelines import PROMPTS, micro_pipeline
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.synthesis.pipeline import Synthesis, VGMedGenPipeline

ASKED = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "np"}


@pytest.fixture(scope="module")
def pipeline():
    return micro_pipeline()


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(path)
    return path


def test_a_saved_pipeline_draws_the_same_images(pipeline, folder):
    loaded = VGMedGenPipeline.from_pretrained(folder)
    np.testing.assert_array_equal(
        loaded(PROMPTS, seeds=[1, 2, 3], **ASKED).images,
        pipeline(PROMPTS, seeds=[1, 2, 3], **ASKED).images,
    )


def test_the_index_names_our_classes_by_the_package_alone(folder):
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "VGMedGenPipeline"
    assert index["hffm"] == ["vgmedgen", "HFFM"]
    assert index["text_mapper"] == ["vgmedgen", "TextMapper"]
    assert index["transformer"] == ["diffusers", "PixArtTransformer2DModel"]
    assert index["scheduler"] == ["diffusers", "DPMSolverMultistepScheduler"]
    assert index["visual_prior"] == ["vgmedgen", "VisualPrior"]


def test_the_folder_holds_weights_as_safetensors_only(folder):
    endings = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert ".safetensors" in endings
    assert endings <= {".safetensors", ".json", ".txt", ".jinja"}


def test_weights_in_another_format_are_not_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "hffm" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(OSError, match="safetensors"):
        VGMedGenPipeline.from_pretrained(tmp_path)


def test_a_folder_with_the_scheduler_of_training_draws_the_same(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "scheduler")
    trained_with = DDPMScheduler(beta_schedule="linear", clip_sample=False)
    trained_with.save_pretrained(tmp_path / "scheduler")
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DDPMScheduler"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    images = [
        VGMedGenPipeline.from_pretrained(path)(PROMPTS[0], seeds=[1], **ASKED).images
        for path in (folder, tmp_path)
    ]
    np.testing.assert_array_equal(*images)


def test_the_package_gives_its_classes_without_importing_them_before():
    assert vgmedgen.VGMedGenPipeline is VGMedGenPipeline
    assert vgmedgen.TextMapper is TextMapper
    assert vgmedgen.HFFM.__name__ == "HFFM"
    with pytest.raises(AttributeError, match="Nothing"):
        _ = vgmedgen.Nothing
    light = "import sys, vgmedgen; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", light], check=True)


def test_a_pipeline_without_a_visual_prior_saves_loads_and_draws(pipeline, tmp_path):
    VGMedGenPipeline(**{**pipeline.components, "visual_prior": None}).save_pretrained(
        tmp_path
    )
    loaded = VGMedGenPipeline.from_pretrained(tmp_path)
    assert loaded.visual_prior is None
    assert not (tmp_path / "visual_prior").exists()
    np.testing.assert_array_equal(
        loaded(PROMPTS, seeds=[1, 2, 3], **ASKED).images,
        pipeline(PROMPTS, seeds=[1, 2, 3], **ASKED).images,
    )
    with pytest.raises(ValueError, match="no masks"):
        loaded.masks_of(np.zeros((1, 32, 32, 3), np.uint8))


def test_a_folder_from_before_the_visual_prior_is_still_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "visual_prior")
    index = json.loads((tmp_path / "model_index.json").read_text())
    del index["visual_prior"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert VGMedGenPipeline.from_pretrained(tmp_path).visual_prior is None


def test_the_visual_prior_comes_back_as_it_was(pipeline, folder):
    loaded = VGMedGenPipeline.from_pretrained(folder).visual_prior
    assert isinstance(loaded, VisualPrior)
    for name, weight in pipeline.visual_prior.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_a_fresh_python_loads_and_draws_the_same(pipeline, folder, tmp_path):
    """By our class, and by the class of plain diffusers once ours was imported."""
    script = """
import sys
import numpy as np
from vgmedgen import VGMedGenPipeline
from diffusers import DiffusionPipeline
told = dict(seeds=[4], num_inference_steps=3, guidance_scale=2.0)
told |= dict(output_type="np", output_masks=True)
for number, kind in enumerate((VGMedGenPipeline, DiffusionPipeline)):
    pipeline = kind.from_pretrained(sys.argv[1])
    assert type(pipeline) is VGMedGenPipeline
    drawn = pipeline(sys.argv[2], **told)
    np.savez(f"{sys.argv[3]}/{number}.npz", images=drawn.images, masks=drawn.masks)
"""
    subprocess.run(
        [sys.executable, "-c", script, str(folder), PROMPTS[0], str(tmp_path)],
        check=True,
        capture_output=True,
    )
    told = {**ASKED, "seeds": [4], "output_masks": True}
    here = pipeline(PROMPTS[0], **told)
    for number in (0, 1):
        there = np.load(tmp_path / f"{number}.npz")
        np.testing.assert_allclose(there["images"], here.images, atol=1e-4)
        np.testing.assert_array_equal(there["masks"], here.masks)


def test_plain_diffusers_finds_the_class_that_a_folder_names(folder):
    assert diffusers.VGMedGenPipeline is VGMedGenPipeline
    loaded = diffusers.DiffusionPipeline.from_pretrained(folder)
    assert isinstance(loaded, VGMedGenPipeline)
    assert isinstance(loaded(PROMPTS[0], **ASKED), Synthesis)


def test_a_folder_that_is_not_there_is_named_without_the_network(tmp_path):
    with pytest.raises(OSError, match=r"nothing is no pipeline folder"):
        VGMedGenPipeline.from_pretrained(tmp_path / "nothing")


@pytest.mark.parametrize("option", ["custom_pipeline", "trust_remote_code"])
def test_an_option_that_would_run_foreign_code_is_refused(folder, option):
    with pytest.raises(ValueError, match=f"{option} would run foreign code"):
        VGMedGenPipeline.from_pretrained(folder, **{option: "some/where"})


def test_a_folder_that_names_another_library_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["hffm"] = ["antigravity", "HFFM"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="takes hffm from 'antigravity'"):
        VGMedGenPipeline.from_pretrained(tmp_path)


def test_code_in_a_folder_is_never_run(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    left = tmp_path / "left"
    code = f"import pathlib; pathlib.Path({str(left)!r}).touch()"
    (tmp_path / "model" / "hffm" / "vgmedgen.py").write_text(code)
    with pytest.raises(ValueError, match=r"holds code \(vgmedgen\.py\)"):
        VGMedGenPipeline.from_pretrained(tmp_path / "model")
    assert not left.exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"hffm": []}'])
def test_a_damaged_index_is_refused(tmp_path, content):
    (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(ValueError, match=r"model_index\.json is damaged"):
        VGMedGenPipeline.from_pretrained(tmp_path)


LOADS = "DiffusionPipeline.from_pretrained(sys.argv[1])"


@pytest.mark.parametrize(
    "script",
    [
        f"import vgmedgen; from diffusers import DiffusionPipeline; p = {LOADS}",
        f"from diffusers import DiffusionPipeline; import vgmedgen; p = {LOADS}",
        f"import vgmedgen, diffusers; p = diffusers.{LOADS}",
    ],
)
def test_importing_the_package_is_all_that_plain_diffusers_needs(folder, script):
    told = f"import sys; {script}; sys.exit(type(p).__name__ != 'VGMedGenPipeline')"
    subprocess.run([sys.executable, "-c", told, str(folder)], check=True)


def test_diffusers_is_otherwise_as_it_was():
    script = """
import sys, vgmedgen
assert "diffusers" not in sys.modules and "torch" not in sys.modules
import diffusers
assert "vgmedgen.synthesis.pipeline" not in sys.modules
assert diffusers.__name__ == "diffusers" and diffusers.__version__
assert not [f for f in sys.meta_path if getattr(f, "__module__", "") == "vgmedgen"]
try:
    diffusers.Nothing
except AttributeError as error:
    assert "Nothing" in str(error)
else:
    sys.exit(1)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_folder_loads_and_draws_in_half(folder, kind):
    loaded = VGMedGenPipeline.from_pretrained(folder, torch_dtype=kind)
    assert torch.get_default_dtype() == torch.float32
    assert {loaded.visual_prior.dtype, loaded.transformer.dtype} == {kind}
    drawn = loaded(PROMPTS[0], output_masks=True, seeds=[4], **ASKED)
    assert np.isfinite(drawn.images).all()
    assert drawn.masks.shape == (1, 32, 32)


def test_a_part_that_does_not_load_leaves_torch_as_it_was(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "visual_prior/config.json").write_text("{}")
    with pytest.raises(Exception):  # noqa: B017, PT011  # diffusers' own
        VGMedGenPipeline.from_pretrained(tmp_path, torch_dtype=torch.float16)
    assert torch.get_default_dtype() == torch.float32
