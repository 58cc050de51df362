"""An image is a function of its ask alone, to the byte."""

import random
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pipelines import PROMPTS, micro_pipeline
from vgmedgen.errors import DataError, ReleaseError
from vgmedgen.models.generator import Generator
from vgmedgen.process import parallel
from vgmedgen.synthesis import drawing
from vgmedgen.synthesis.asked import Ask
from vgmedgen.synthesis.drawing import LANES, Drawer, groups
from vgmedgen.synthesis.pipeline import VGMedGenPipeline

ASKS = [
    Ask(
        number=number,
        prompt=PROMPTS[number % 3],
        seed=40 + number,
        style=PROMPTS[1] if number % 4 == 0 else "",
        towards=PROMPTS[2] if number % 5 == 0 else "",
        share=0.4 if number % 5 == 0 else 0.0,
    )
    for number in range(2 * LANES + 3)
]
STEPS, GUIDANCE = 3, 2.0


@pytest.fixture(scope="module")
def pipeline():
    return micro_pipeline()


def drawer(pipeline, **told):
    return Drawer(pipeline, **{"steps": STEPS, "guidance": GUIDANCE, **told})


def told_of(drawn):
    """Everything that was drawn, by number, as bytes."""
    return {
        one.ask.number: (
            one.pixels.tobytes(),
            None if one.mask is None else one.mask.tobytes(),
        )
        for one in drawn
    }


@pytest.fixture(scope="module")
def whole(pipeline):
    """The whole job, in one go."""
    return told_of(drawer(pipeline, masks=True).draw(ASKS))


def test_a_job_gives_every_image_in_the_order_of_its_asks(pipeline):
    backwards = ASKS[::-1]
    drawn = list(drawer(pipeline).draw(backwards))
    assert [one.ask for one in drawn] == backwards
    for one in drawn:
        assert one.pixels.shape == (32, 32, 3)
        assert one.pixels.dtype == np.uint8
        assert one.mask is None


def test_images_of_a_job_differ(whole):
    assert len({pixels for pixels, _ in whole.values()}) == len(ASKS)


@pytest.mark.parametrize("number", [0, 3, LANES - 1, LANES, 2 * LANES + 2])
def test_an_image_drawn_alone_is_the_one_of_the_job(pipeline, whole, number):
    alone = told_of(drawer(pipeline, masks=True).draw([ASKS[number]]))
    assert alone == {number: whole[number]}


@pytest.mark.parametrize("seed", range(4))
def test_any_subset_in_any_order_gives_the_images_of_the_job(pipeline, whole, seed):
    draw = random.Random(seed)  # noqa: S311  # no secret is drawn
    some = draw.sample(ASKS, draw.randint(2, len(ASKS)))
    found = told_of(drawer(pipeline, masks=True).draw(some))
    assert found == {ask.number: whole[ask.number] for ask in some}


def test_a_job_that_goes_on_elsewhere_gives_the_same_images(pipeline, whole):
    begun = iter(drawer(pipeline, masks=True).draw(ASKS))
    first = [next(begun) for _ in range(LANES + 2)]
    begun.close()
    rest = drawer(micro_pipeline(), masks=True).draw(ASKS[LANES + 2 :])
    assert told_of([*first, *rest]) == whole


def test_what_the_neighbours_are_asked_does_not_matter(pipeline, whole):
    others = [
        ask if ask.number == 2 else replace(ask, prompt=PROMPTS[0], seed=9, style="")
        for ask in ASKS
    ]
    assert told_of(drawer(pipeline, masks=True).draw(others))[2] == whole[2]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_does_not_matter_and_is_left_alone(
    pipeline, whole, threads
):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert told_of(drawer(pipeline, masks=True).draw(ASKS)) == whole
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_another_process_with_more_threads_draws_the_same_bytes(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "model")
    script = """
import sys, torch
torch.set_num_threads(3)
from vgmedgen import VGMedGenPipeline
from vgmedgen.synthesis.asked import Ask
from vgmedgen.synthesis.drawing import Drawer
pipeline = VGMedGenPipeline.from_pretrained(sys.argv[1])
asks = [Ask(number=number, prompt="a small red polyp", seed=1) for number in (3, 12)]
for drawn in Drawer(pipeline, steps=3, guidance=2.0, masks=True).draw(asks):
    print(drawn.pixels.tobytes().hex(), drawn.mask.tobytes().hex())
"""
    told = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    asks = [Ask(number=number, prompt=PROMPTS[1], seed=1) for number in (3, 12)]
    drawn = drawer(pipeline, masks=True).draw(asks)
    here = [f"{d.pixels.tobytes().hex()} {d.mask.tobytes().hex()}" for d in drawn]
    assert told == here
    assert len(here) == 2


def test_seed_steps_guidance_and_prompt_each_change_an_image(pipeline, whole):
    one = ASKS[1]
    others = [
        drawer(pipeline).draw([replace(one, seed=99)]),
        drawer(pipeline).draw([replace(one, prompt=PROMPTS[0])]),
        drawer(pipeline, steps=4).draw([one]),
        drawer(pipeline, guidance=3.0).draw([one]),
    ]
    found = {next(told).pixels.tobytes() for told in others}
    assert len(found) == 4
    assert whole[1][0] not in found


def test_images_are_computed_in_lanes_whatever_is_asked(pipeline, monkeypatch):
    rows = []
    denoise = Generator.denoise

    def noted(self, latents, timesteps, tokens):
        rows.append(len(latents))
        return denoise(self, latents, timesteps, tokens)

    monkeypatch.setattr(Generator, "denoise", noted)
    list(drawer(pipeline).draw(ASKS[:3]))
    assert rows == [2 * LANES] * STEPS
    rows.clear()
    list(drawer(pipeline, guidance=1.0).draw(ASKS[: LANES + 1]))
    assert rows == [LANES] * STEPS * 2


def test_a_group_holds_no_lane_twice_and_keeps_the_order():
    numbers = [0, 9, 2, 16, 3, 3, 7, 8]
    asks = [Ask(number=n, prompt="a", seed=0) for n in numbers]
    split = [[ask.number for ask in group] for group in groups(asks)]
    assert split == [[0, 9, 2], [16, 3], [3, 7, 8]]
    assert list(groups([])) == []


def test_it_agrees_with_the_pipeline_up_to_rounding(pipeline):
    told = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    picture = pipeline(PROMPTS[1], seeds=[41], **told).images[0]
    drawn = next(drawer(pipeline).draw([ASKS[1]]))
    assert ASKS[1].prompt == PROMPTS[1]
    assert ASKS[1].seed == 41
    apart = np.asarray(picture).astype(int) - drawn.pixels
    assert abs(apart).max() <= 1


def test_a_mask_is_what_the_prior_sees_in_the_very_pixels(pipeline):
    drawn = list(drawer(pipeline, masks=True).draw(ASKS))
    seen = pipeline.masks_of(np.stack([one.pixels for one in drawn]))
    for one, mask in zip(drawn, seen, strict=True):
        assert one.mask.shape == (32, 32)
        assert one.mask.dtype == np.uint8
        np.testing.assert_array_equal(one.mask, mask)
    assert set(np.unique(seen)) == {0, 1}


def test_a_mask_survives_a_png(pipeline, tmp_path):
    drawn = next(drawer(pipeline, masks=True).draw(ASKS))
    Image.fromarray(drawn.pixels).save(tmp_path / "image.png")
    pixels = np.asarray(Image.open(tmp_path / "image.png"))
    np.testing.assert_array_equal(pipeline.masks_of(pixels[None])[0], drawn.mask)


def test_masks_without_a_visual_prior_are_refused_before_anything_is_drawn(pipeline):
    without = VGMedGenPipeline(**{**pipeline.components, "visual_prior": None})
    with pytest.raises(ReleaseError, match="no visual prior"):
        drawer(without, masks=True)
    assert next(drawer(without).draw(ASKS)).mask is None


def test_no_asks_give_no_images(pipeline):
    assert list(drawer(pipeline).draw([])) == []


def test_an_empty_caption_ends_the_job_in_an_error(pipeline):
    bad = [*ASKS[:2], replace(ASKS[2], prompt=" ")]
    with pytest.raises(DataError, match="empty"):
        list(drawer(pipeline).draw(bad))


def test_an_image_of_no_numbers_is_refused_by_its_number():
    pipeline = micro_pipeline()
    with torch.no_grad():
        pipeline.transformer.proj_out.bias.fill_(float("nan"))
    with pytest.raises(ReleaseError, match="image 1 came out as no numbers"):
        list(drawer(pipeline).draw(ASKS[1:3]))


def test_a_job_that_is_given_up_stops_its_threads(pipeline, monkeypatch):
    """Closing the iterator ends a drawing of very many steps at its next step."""
    begun = threading.Event()
    denoise = Generator.denoise

    def noted(self, latents, timesteps, tokens):
        if len(timesteps) and int(timesteps[0]) < 990:
            begun.set()
        return denoise(self, latents, timesteps, tokens)

    monkeypatch.setattr(Generator, "denoise", noted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(drawing.torch, "set_num_threads", lambda _: None)
    asks = drawer(pipeline, steps=900).draw(ASKS)

    def interrupted(*_):
        begun.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(parallel.Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(asks)
    assert begun.is_set()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("piece")]
