import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler

import vgmedgen
from tests.builders import MICRO, awake
from vgmedgen.dit.model import Generator
from vgmedgen.synthesis.pipeline import VGMedGenPipeline
from vgmedgen.text.encoder import build_tiny
from vgmedgen.text.mapper import TextMapper
from vgmedgen.text.vocabulary import build_tokenizer

PROMPTS = [
    "a dermoscopic image of a large brown lesion",
    "a small red polyp",
    "a dark mass in the upper left of the breast, irregular, not circumscribed",
]
ASKED = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "np"}


@pytest.fixture(scope="module")
def pipeline():
    torch.manual_seed(0)
    generator = awake(Generator.build(MICRO, seed=1))
    tokenizer = build_tokenizer(sorted(set(" ".join(PROMPTS).split())), 32)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    )
    return VGMedGenPipeline(
        transformer=generator.transformer,
        hffm=generator.hffm,
        text_mapper=TextMapper.of(MICRO, MICRO.text_width, 2),
        text_encoder=build_tiny(MICRO.text_width, 1, tokenizer, 3),
        tokenizer=tokenizer,
        vae=vae,
        scheduler=DDPMScheduler(beta_schedule="linear", clip_sample=False),
    )


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(path)
    return path


def test_the_same_seed_gives_the_same_image(pipeline):
    first = pipeline(PROMPTS, seeds=[1, 2, 3], **ASKED)
    second = pipeline(PROMPTS, seeds=[1, 2, 3], **ASKED)
    assert first.images.shape == (3, 32, 32, 3)
    assert first.images.min() >= 0
    assert first.images.max() <= 1
    np.testing.assert_array_equal(first.images, second.images)


def test_prompt_and_seed_each_change_the_image(pipeline):
    images = pipeline([PROMPTS[0]] * 2 + PROMPTS[1:2], seeds=[1, 2, 1], **ASKED).images
    assert not np.allclose(images[0], images[1])
    assert not np.allclose(images[0], images[2])


def test_an_image_does_not_depend_on_the_other_prompts(pipeline):
    together = pipeline(PROMPTS, seeds=[1, 2, 3], **ASKED).images
    for row, prompt in enumerate(PROMPTS):
        alone = pipeline(prompt, seeds=[row + 1], **ASKED).images[0]
        np.testing.assert_allclose(alone, together[row], atol=1e-4)


def test_drawn_seeds_are_told_and_draw_the_same_again(pipeline):
    drawn = pipeline(PROMPTS, generator=torch.Generator().manual_seed(5), **ASKED)
    again = pipeline(PROMPTS, generator=torch.Generator().manual_seed(5), **ASKED)
    assert drawn.seeds == again.seeds
    told = pipeline(PROMPTS, seeds=drawn.seeds, **ASKED)
    np.testing.assert_array_equal(told.images, drawn.images)
    assert pipeline(PROMPTS[0], **ASKED).seeds != pipeline(PROMPTS[0], **ASKED).seeds


def test_every_output_type_holds_the_same_image(pipeline):
    told = {**ASKED, "seeds": [4]}
    array = pipeline(PROMPTS[0], **told).images
    picture = pipeline(PROMPTS[0], **{**told, "output_type": "pil"}).images[0]
    tensor = pipeline(PROMPTS[0], **{**told, "output_type": "pt"}).images
    latents = pipeline(PROMPTS[0], **{**told, "output_type": "latent"}).images
    assert picture.size == (32, 32)
    np.testing.assert_allclose(np.asarray(picture) / 255, array[0], atol=1 / 255)
    np.testing.assert_array_equal(tensor.permute(0, 2, 3, 1).numpy(), array)
    assert latents.shape == (1, 4, 4, 4)


def test_an_empty_call_and_a_missing_seed_are_refused(pipeline):
    with pytest.raises(ValueError, match="no prompt"):
        pipeline([])
    with pytest.raises(ValueError, match="1 seeds for 3"):
        pipeline(PROMPTS, seeds=[1], **ASKED)


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


def test_a_scheduler_of_the_user_s_own_is_kept(pipeline):
    own = DPMSolverMultistepScheduler(beta_schedule="linear", solver_order=3)
    parts = {**pipeline.components, "scheduler": own}
    assert VGMedGenPipeline(**parts).scheduler is own


def test_the_package_gives_its_classes_without_importing_them_before():
    assert vgmedgen.VGMedGenPipeline is VGMedGenPipeline
    assert vgmedgen.TextMapper is TextMapper
    assert vgmedgen.HFFM.__name__ == "HFFM"
    with pytest.raises(AttributeError, match="Nothing"):
        _ = vgmedgen.Nothing
    light = "import sys, vgmedgen; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", light], check=True)
