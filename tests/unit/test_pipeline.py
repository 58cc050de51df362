"""The pipeline takes and gives as a diffusers pipeline does."""

import logging

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.callbacks import PipelineCallback

from tests.pipelines import PROMPTS, micro_pipeline
from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.synthesis.control import interpolate
from vgmedgen.synthesis.pipeline import VGMedGenPipeline

ASKED = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "np"}
LATENT = {**ASKED, "output_type": "latent"}


@pytest.fixture(scope="module")
def pipeline():
    return micro_pipeline()


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
    with pytest.raises(ValueError, match="1 seeds for 3 images"):
        pipeline(PROMPTS, seeds=[1], **ASKED)


def test_a_scheduler_of_the_user_s_own_is_kept(pipeline):
    own = DPMSolverMultistepScheduler(beta_schedule="linear", solver_order=3)
    parts = {**pipeline.components, "scheduler": own}
    assert VGMedGenPipeline(**parts).scheduler is own


def vectors(pipeline, caption):
    embedding = TextEncoder(pipeline.text_encoder, pipeline.tokenizer).embed([caption])
    with torch.no_grad():
        return pipeline.text_mapper(embedding)


class HandedError(Exception):
    """Carries what a stand-in for the sampler was handed."""


@pytest.fixture
def handed(pipeline, monkeypatch):
    """What a call hands to the sampler: anatomy, style and all that has a name."""
    import vgmedgen.synthesis.pipeline as module

    def stand_in(_, __, anatomy, style, **told):
        raise HandedError({"anatomy": anatomy, "style": style, **told})

    monkeypatch.setattr(module, "sample", stand_in)

    def call(*words, **told):
        with pytest.raises(HandedError) as caught:
            pipeline(*words, **told)
        return caught.value.args[0]

    return call


def test_copies_of_a_prompt_lie_together_and_differ(pipeline):
    told = pipeline(
        PROMPTS[:2], num_images_per_prompt=2, seeds=[1, 2, 1, 2], **ASKED
    ).images
    apart = pipeline(
        [PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1]], seeds=[1, 2, 1, 2], **ASKED
    ).images
    np.testing.assert_array_equal(told, apart)
    assert not np.allclose(told[0], told[1])


def test_one_generator_per_image_draws_its_seed(pipeline):
    def made():
        return [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]

    drawn = pipeline(PROMPTS, generator=made(), **ASKED)
    alone = pipeline(PROMPTS[2], generator=made()[2], **ASKED)
    assert alone.seeds == drawn.seeds[2:]
    assert len(set(drawn.seeds)) == 3


def test_given_latents_take_the_place_of_the_seeds(pipeline):
    noise = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    first = pipeline(PROMPTS, latents=noise, **LATENT).images
    again = pipeline(PROMPTS, latents=noise, seeds=[7, 8, 9], **LATENT).images
    assert torch.equal(first, again)
    assert not torch.allclose(first, pipeline(PROMPTS, latents=-noise, **LATENT).images)


def test_a_tuple_begins_with_the_images(pipeline):
    told = {**ASKED, "seeds": [1], "return_dict": False}
    images, seeds = pipeline(PROMPTS[0], **told)
    assert images.shape == (1, 32, 32, 3)
    assert seeds == [1]
    assert len(pipeline(PROMPTS[0], output_masks=True, **told)) == 3


def test_anatomy_and_style_of_two_captions_are_handed_on_as_they_are(pipeline, handed):
    told = handed(PROMPTS[2], anatomy_prompt=PROMPTS[0], style_prompt=PROMPTS[1])
    torch.testing.assert_close(told["anatomy"], vectors(pipeline, PROMPTS[0])[0])
    torch.testing.assert_close(told["style"], vectors(pipeline, PROMPTS[1])[1])


def test_each_prompt_may_have_its_own_style_or_none(pipeline, handed):
    told = handed(PROMPTS, style_prompt=[PROMPTS[1], None, ""])
    own = [vectors(pipeline, words)[1] for words in (PROMPTS[1], *PROMPTS[1:])]
    torch.testing.assert_close(told["style"], torch.cat(own))


def test_a_share_moves_both_vectors(pipeline, handed):
    told = handed(PROMPTS[:2], towards_prompt=PROMPTS[2], share=[0.25, 1.0])
    end = vectors(pipeline, PROMPTS[2])
    by_hand = [
        interpolate(vectors(pipeline, words), end, share)
        for words, share in ((PROMPTS[0], 0.25), (PROMPTS[1], 1.0))
    ]
    for name, half in (("anatomy", 0), ("style", 1)):
        expected = torch.cat([one[half] for one in by_hand])
        torch.testing.assert_close(told[name], expected)


def test_the_defaults_are_25_steps_and_guidance_1_5(handed):
    told = handed(PROMPTS[0])
    assert (told["steps"], told["guidance"]) == (25, 1.5)


def test_a_callback_sees_every_step_and_replaces_the_latents(pipeline):
    seen = []

    def blank(given, step, timestep, named):
        seen.append((given is pipeline, step, int(timestep), set(named)))
        return {"latents": torch.zeros_like(named["latents"])} if step == 2 else {}

    told = {**LATENT, "callback_on_step_end": blank}
    drawn = pipeline(PROMPTS, seeds=[1, 2, 3], **told).images
    assert [step for _, step, _, _ in seen] == [0, 1, 2]
    assert all(own and names == {"latents"} for own, _, _, names in seen)
    assert torch.equal(drawn, torch.zeros(3, 4, 4, 4))


def test_a_callback_that_gives_nothing_changes_nothing(pipeline):
    told = {**LATENT, "seeds": [1, 2, 3]}
    plain = pipeline(PROMPTS, **told).images
    watched = pipeline(PROMPTS, callback_on_step_end=lambda *_: None, **told).images
    assert torch.equal(plain, watched)


def test_an_interrupt_ends_the_drawing_and_the_next_call_is_whole(pipeline):
    steps = []

    def stop(given, step, _, named):
        steps.append(step)
        given._interrupt = step == 1
        return named

    told = {**LATENT, "seeds": [1], "num_inference_steps": 5}
    short = pipeline(PROMPTS[0], callback_on_step_end=stop, **told).images
    assert steps == [0, 1]
    assert pipeline.interrupt
    whole = pipeline(PROMPTS[0], **told).images
    assert not pipeline.interrupt
    assert not torch.allclose(short, whole)


def test_a_callback_object_of_diffusers_is_handed_its_tensors(pipeline):
    class Noted(PipelineCallback):
        tensor_inputs = ["latents"]  # noqa: RUF012  # as diffusers declares it

        def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
            self.seen = [*getattr(self, "seen", []), callback_kwargs["latents"].shape]
            return callback_kwargs

    noted = Noted(cutoff_step_ratio=1.0)
    pipeline(PROMPTS[0], callback_on_step_end=noted, **ASKED)
    assert noted.seen == [(1, 4, 4, 4)] * 3


def test_the_progress_bar_counts_the_steps_and_can_be_silenced(pipeline, capfd):
    pipeline(PROMPTS[0], **ASKED)
    assert capfd.readouterr().err == ""
    pipeline.set_progress_bar_config(disable=False)
    try:
        pipeline(PROMPTS[0], **ASKED)
    finally:
        pipeline.set_progress_bar_config(disable=True)
    assert "3/3" in capfd.readouterr().err


def test_masks_are_of_the_pixels_that_are_given(pipeline):
    told = {"num_inference_steps": 3, "seeds": [1, 2, 3], "output_masks": True}
    drawn = pipeline(PROMPTS, **told)
    pixels = np.stack([np.asarray(image) for image in drawn.images])
    assert drawn.masks.shape == (3, 32, 32)
    assert drawn.masks.dtype == np.uint8
    assert set(np.unique(drawn.masks)) == {0, 1}
    np.testing.assert_array_equal(drawn.masks, pipeline.masks_of(pixels))
    for row in range(3):
        alone = pipeline.masks_of(pixels[row : row + 1])
        np.testing.assert_array_equal(alone[0], drawn.masks[row])


def test_no_masks_are_given_where_none_were_asked_for(pipeline):
    drawn = pipeline(PROMPTS[0], **ASKED)
    assert drawn.masks is None
    assert "masks" not in drawn


@pytest.mark.parametrize(
    ("words", "told", "message"),
    [
        (None, {}, "no prompt"),
        (["skin", " "], {}, "prompt 2 of 2 is empty"),
        ("", {}, "prompt 1 of 1 is empty"),
        ([None], {}, "prompt 1 of 1 is empty"),
        ("skin", {"style_prompt": "  "}, "style_prompt holds nothing but spaces"),
        ("skin", {"anatomy_prompt": ["a", "b"]}, "2 anatomy_prompt for 1 prompts"),
        ("skin", {"share": 0.5}, "no towards_prompt"),
        ("skin", {"share": 2, "towards_prompt": "red"}, "share is 2"),
        ("skin", {"share": [0.1, 0.2], "towards_prompt": "red"}, "2 share for 1"),
        ("skin", {"seeds": [1], "generator": torch.Generator()}, "one of them"),
        ("skin", {"seeds": [1, 2]}, "2 seeds for 1 images"),
        ("skin", {"seeds": [2**64]}, "seed 18446744073709551616"),
        ("skin", {"generator": [torch.Generator()] * 2}, "2 generators for 1"),
        ("skin", {"num_images_per_prompt": 2, "seeds": [1]}, "1 seeds for 2"),
        ("skin", {"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ("skin", {"num_inference_steps": 0}, "num_inference_steps is 0"),
        ("skin", {"guidance_scale": -1}, "guidance_scale is -1"),
        ("skin", {"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ("skin", {"output_type": "gif"}, "output_type is 'gif'"),
        ("skin", {"output_type": "latent", "output_masks": True}, "needs images"),
        ("skin", {"latents": torch.zeros(2, 4, 4, 4)}, r"shape \(2, 4, 4, 4\)"),
        (
            "skin",
            {"callback_on_step_end_tensor_inputs": ["prompt_embeds"]},
            "'prompt_embeds'",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_as_diffusers_does(
    pipeline, words, told, message
):
    with pytest.raises(ValueError, match=message):
        pipeline(words, **told)


def test_masks_without_a_prior_are_refused_before_anything_is_drawn(pipeline):
    without = VGMedGenPipeline(**{**pipeline.components, "visual_prior": None})
    with pytest.raises(ValueError, match="output_masks needs a visual prior"):
        without("skin", output_masks=True)


def test_a_long_prompt_is_told_of_and_refused_where_asked(pipeline, caplog):
    long = "red " * 40
    with caplog.at_level(logging.WARNING):
        pipeline([PROMPTS[0], long], **ASKED)
    assert len(caplog.records) == 1
    assert "10 tokens do not fit into the text encoder's 32" in caplog.text
    with pytest.raises(ValueError, match="10 tokens do not fit"):
        pipeline(PROMPTS[0], style_prompt=long, strict=True, **ASKED)
    pipeline(PROMPTS[0], strict=True, **ASKED)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5"),
        ({"num_inference_steps": None}, "num_inference_steps is None"),
        ({"num_inference_steps": True}, "num_inference_steps is True"),
        ({"num_images_per_prompt": "2"}, "num_images_per_prompt is '2'"),
        ({"num_images_per_prompt": 1.5}, "num_images_per_prompt is 1.5"),
        ({"guidance_scale": "2"}, "guidance_scale is '2'"),
        ({"guidance_scale": None}, "guidance_scale is None"),
        ({"guidance_scale": True}, "guidance_scale is True"),
        ({"generator": 5}, "generator is 5"),
        ({"generator": ["x"]}, "generator holds 'x'"),
        ({"seeds": 7}, "seeds is 7"),
        ({"seeds": [1.7]}, "seed 1.7 is no whole number"),
        ({"seeds": ["7"]}, "seed '7' is no whole number"),
        ({"share": "x"}, "share is 'x'"),
        ({"share": [None], "towards_prompt": "red"}, "share is None"),
        ({"anatomy_prompt": 5}, "anatomy_prompt is 5"),
        ({"style_prompt": [5]}, "style_prompt is 5"),
        ({"latents": np.zeros((1, 4, 4, 4))}, "latents is a ndarray"),
        ({"callback_on_step_end": 5}, "callback_on_step_end is 5"),
        ({"callback_on_step_end": lambda *_: [1]}, "gave a list"),
        ({"callback_on_step_end": lambda *_: {"latents": 1}}, "latents that are a int"),
    ],
)
def test_an_argument_of_another_type_is_named(pipeline, told, message):
    with pytest.raises(TypeError, match=message) as caught:
        pipeline("skin", **{**LATENT, **told})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [5, [5], b"skin", {"a": 1}])
def test_a_prompt_is_text(pipeline, words):
    with pytest.raises(TypeError, match="prompt"):
        pipeline(words, **LATENT)
    with pytest.raises(ValueError, match="half a character"):
        pipeline("a\ud800b", **LATENT)


def test_numbers_of_numpy_are_numbers(pipeline):
    told = {
        **LATENT,
        "num_inference_steps": np.int64(3),
        "guidance_scale": np.float32(2),
    }
    drawn = pipeline("skin", seeds=list(np.array([4])), **told)
    expected = pipeline("skin", seeds=[4], **LATENT)
    assert torch.equal(drawn.images, expected.images)


def test_as_many_steps_as_training_had_are_refused(pipeline):
    trained = pipeline.scheduler.config.num_train_timesteps
    told = {**LATENT, "guidance_scale": 1.0, "seeds": [1]}
    with pytest.raises(ValueError, match=rf"must lie in \[1, {trained - 1}\]"):
        pipeline("skin", **{**told, "num_inference_steps": trained})
    most = pipeline("skin", **{**told, "num_inference_steps": trained - 1})
    assert most.images.isfinite().all()


def test_what_is_not_finite_is_never_an_image(pipeline):
    nothing = torch.full((1, 4, 4, 4), float("nan"))
    with pytest.raises(ValueError, match="latents holds values that are not finite"):
        pipeline("skin", latents=nothing, **ASKED)
    with pytest.raises(ValueError, match="callback_on_step_end gave holds"):
        pipeline("skin", callback_on_step_end=lambda *_: {"latents": nothing}, **ASKED)
    with pytest.raises(ValueError, match="not finite"):
        pipeline("skin", **{**ASKED, "guidance_scale": 3e38})
