import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vgmedgen.data import adapters, images
from vgmedgen.data.attributes import ANATOMY, STYLE, measure, words
from vgmedgen.data.colour import to_lab
from vgmedgen.data.phantom import draw, tint_of

REAL = Path(os.environ.get("VGMEDGEN_DATA", Path(__file__).parents[3] / "shared/data"))
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
MODALITIES = {"ham10000": "dermoscopy", "busi": "ultrasound", "kvasir-seg": "endoscopy"}
SKIN, BROWN = (220, 180, 170), (110, 70, 50)


def ellipse(
    px: int, x: float, y: float, wide: float, high: float, turn: float = 0.0
) -> Tensor:
    """Mask (1, px, px) of an ellipse; all lengths are shares of the side."""
    line = (torch.arange(px) + 0.5) / px
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    angle = torch.deg2rad(torch.tensor(turn))
    dx, dy = columns - x, y - rows
    along = dx * angle.cos() + dy * angle.sin()
    across = dy * angle.cos() - dx * angle.sin()
    return ((along / wide) ** 2 + (across / high) ** 2 <= 1)[None].byte()


def picture(mask: Tensor, inside: tuple[int, ...], outside: tuple[int, ...]) -> Tensor:
    colours = [torch.tensor(rgb).reshape(3, 1, 1) for rgb in (inside, outside)]
    return torch.where(mask.bool(), *colours).byte()


@pytest.mark.parametrize("px", [64, 128, 512])
def test_an_ellipse_is_measured_as_it_was_drawn(px: int) -> None:
    mask = ellipse(px, 0.35, 0.6, 0.2, 0.1, turn=30)
    found = measure(picture(mask, BROWN, SKIN), mask)
    assert found.area == pytest.approx(torch.pi * 0.02, rel=0.05)
    assert (found.x, found.y) == pytest.approx((0.35, 0.6), abs=0.01)
    assert found.elongation == pytest.approx(2, rel=0.08)
    assert found.angle == pytest.approx(30, abs=4)
    assert found.irregularity < 0.075
    assert found.solidity > 0.9
    assert found.parts == 1
    assert found.lesion_rgb == pytest.approx(BROWN, abs=1)
    assert found.surround_rgb == pytest.approx(SKIN, abs=1)
    assert found.difference < 0 < found.contrast
    assert found.sharpness > 0.8


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (0.5, 0.5, "centre"),
        (0.4, 0.4, "upper left"),
        (0.6, 0.5, "middle right"),
        (0.5, 0.8, "bottom central"),
        (0.2, 0.6, "lower far left"),
    ],
)
def test_the_position_follows_the_lesion(x: float, y: float, said: str) -> None:
    mask = ellipse(64, x, y, 0.1, 0.1)
    found = words(measure(picture(mask, BROWN, SKIN), mask), "dermoscopy")
    assert found["position"] == said
    assert found["shape"] == "round"
    assert found["orientation"] == ""


def test_sizes_go_up_with_the_area() -> None:
    said = []
    for radius in (0.05, 0.12, 0.2, 0.3, 0.38, 0.48):
        mask = ellipse(64, 0.5, 0.5, radius, radius)
        said.append(words(measure(picture(mask, BROWN, SKIN), mask), "")["size"])
    assert said == ["tiny", "small", "medium", "large", "very large", "frame-filling"]


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (0, "horizontal"),
        (45, "rising diagonal"),
        (90, "vertical"),
        (135, "falling diagonal"),
        (175, "horizontal"),
    ],
)
def test_the_orientation_follows_the_long_axis(turn: float, said: str) -> None:
    mask = ellipse(64, 0.5, 0.5, 0.3, 0.12, turn)
    found = words(measure(picture(mask, BROWN, SKIN), mask), "dermoscopy")
    assert (found["orientation"], found["shape"]) == (said, "elongated")


def test_lesions_are_counted_and_the_largest_gives_the_shape() -> None:
    mask = ellipse(64, 0.25, 0.5, 0.15, 0.15) | ellipse(64, 0.75, 0.5, 0.2, 0.1)
    mask[0, 2, 2] = 1  # a speck is no lesion
    found = measure(picture(mask, BROWN, SKIN), mask)
    assert words(found, "endoscopy")["number"] == "two"
    assert found.parts == 2


def test_a_star_is_less_regular_than_an_ellipse() -> None:
    star = ellipse(64, 0.5, 0.5, 0.4, 0.08) | ellipse(64, 0.5, 0.5, 0.08, 0.4)
    found = measure(picture(star, BROWN, SKIN), star)
    assert words(found, "ultrasound")["outline"] == "irregular"
    assert found.solidity < 0.8


def test_a_blurred_border_is_ill_defined() -> None:
    mask = ellipse(64, 0.5, 0.5, 0.25, 0.25)
    crisp = picture(mask, BROWN, SKIN)
    blurred = crisp.float()
    for _ in range(60):
        blurred = functional.avg_pool2d(
            functional.pad(blurred, (1, 1, 1, 1), "replicate"), 3, 1
        )
    assert words(measure(crisp, mask), "dermoscopy")["border"] == "sharp"
    assert words(measure(blurred.byte(), mask), "dermoscopy")["border"] == "ill-defined"


@pytest.mark.parametrize(
    ("inside", "outside", "modality", "said"),
    [
        ((30, 25, 20), SKIN, "dermoscopy", "black"),
        ((80, 45, 30), SKIN, "dermoscopy", "dark brown"),
        ((130, 95, 65), SKIN, "dermoscopy", "brown"),
        ((160, 125, 95), SKIN, "dermoscopy", "light brown"),
        ((205, 50, 60), SKIN, "dermoscopy", "red"),
        ((205, 140, 150), SKIN, "dermoscopy", "pink"),
        ((70, 75, 90), SKIN, "dermoscopy", "blue-grey"),
        ((10, 10, 10), (130, 130, 130), "ultrasound", "anechoic"),
        ((90, 90, 90), (130, 130, 130), "ultrasound", "hypoechoic"),
        ((128, 128, 128), (130, 130, 130), "ultrasound", "isoechoic"),
        ((200, 200, 200), (130, 130, 130), "ultrasound", "hyperechoic"),
        ((225, 180, 165), (190, 110, 80), "endoscopy", "whitish"),
        ((215, 90, 70), (190, 110, 80), "endoscopy", "red"),
        ((200, 160, 80), (190, 110, 80), "endoscopy", "yellowish"),
    ],
)
def test_colours_have_the_names_of_their_field(
    inside: tuple[int, ...], outside: tuple[int, ...], modality: str, said: str
) -> None:
    mask = ellipse(64, 0.5, 0.5, 0.2, 0.2)
    found = words(measure(picture(mask, inside, outside), mask), modality)
    assert found["colour"] == said


@pytest.mark.parametrize("modality", ["dermoscopy", "ultrasound", "endoscopy"])
def test_phantoms_are_measured_as_they_were_drawn(modality: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(12):
        phantom = draw(modality, rng, 64, tint_of(2))
        mask = torch.from_numpy(phantom.mask)[None]
        found = measure(torch.from_numpy(phantom.image).movedim(-1, 0), mask)
        assert found.parts == bool(phantom.drawn.area)
        if found.parts:
            drawn = (phantom.drawn.area, phantom.drawn.x, phantom.drawn.y)
            assert (found.area, found.x, found.y) == pytest.approx(drawn, abs=0.03)


def test_light_falls_off_towards_the_darker_side() -> None:
    ramp = torch.linspace(80, 230, 64).round().byte().expand(3, 64, 64)
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    assert words(measure(ramp, mask), "dermoscopy")["shading"] == "leftward"
    assert words(measure(ramp.mT, mask), "endoscopy")["shading"] == "upward"
    found = words(measure(ramp.mT.flip(1), mask), "ultrasound")
    assert found["shading"] == ""
    assert found["depth"] == "strong attenuation"


@pytest.mark.parametrize(("shade", "said"), [(20, "shadowing"), (220, "enhancement")])
def test_what_lies_behind_a_mass_is_said(shade: int, said: str) -> None:
    mask = ellipse(64, 0.5, 0.4, 0.15, 0.15)
    image = picture(mask, (30, 30, 30), (120, 120, 120))
    image[:, 36:, 24:40] = shade
    assert words(measure(image, mask), "ultrasound")["posterior"] == f"posterior {said}"


@pytest.mark.parametrize("modality", ["dermoscopy", "ultrasound", "endoscopy", ""])
@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("masked", [0, 1])
def test_blank_pictures_and_full_or_empty_masks_are_measured(
    modality: str, value: int, masked: int
) -> None:
    image = torch.full((3, 64, 64), value, dtype=torch.uint8)
    mask = torch.full((1, 64, 64), masked, dtype=torch.uint8)
    found = measure(image, mask)
    said = words(found, modality)
    numbers = [v for v in found.to_dict().values() if isinstance(v, float)]
    assert all(map(math.isfinite, numbers))
    assert set(said) == {*ANATOMY, *STYLE}
    assert (said["size"] == "no lesion") == (not masked)


def test_a_lesion_of_one_pixel_in_a_large_image_is_still_a_lesion() -> None:
    mask = torch.zeros(1, 512, 512, dtype=torch.uint8)
    mask[0, 100, 400] = 1
    found = measure(torch.full((3, 512, 512), 99, dtype=torch.uint8), mask)
    assert found.parts == 1
    assert (found.x, found.y) == pytest.approx((400 / 512, 100 / 512), abs=0.02)


def test_planes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="image"):
        measure(torch.zeros(3, 8, 8), torch.zeros(1, 9, 8))


def test_lab_of_known_colours() -> None:
    rgb = torch.tensor([[255, 255, 255], [255, 0, 0], [0, 0, 255]]).T
    expected = torch.tensor([[100, 0, 0], [53.24, 80.09, 67.2], [32.3, 79.19, -107.86]])
    torch.testing.assert_close(to_lab(rgb), expected.T, atol=0.05, rtol=0)


@real
@pytest.mark.parametrize("name", list(MODALITIES))
def test_words_stay_when_the_resolution_changes(name: str) -> None:
    modality = MODALITIES[name]
    records = adapters.read(name, REAL / name).records[::70]
    same = total = 0
    for record in records:
        coarse, fine = (
            words(measure(*images.load(record, px)), modality) for px in (64, 256)
        )
        same += sum(coarse[key] == word for key, word in fine.items() if word)
        total += sum(map(bool, fine.values()))
    assert same / total > 0.9


@real
@pytest.mark.parametrize("name", list(MODALITIES))
def test_no_word_is_said_of_nearly_all_real_images(name: str) -> None:
    modality = MODALITIES[name]
    records = adapters.read(name, REAL / name).records[::12]
    said = [words(measure(*images.load(record, 64)), modality) for record in records]
    for key in {*ANATOMY, *STYLE} - {"number"}:
        spoken = [entry[key] for entry in said]
        for word in set(spoken) - {""}:
            assert spoken.count(word) < 0.8 * len(spoken), (key, word)
