from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vgmedgen.data import images
from vgmedgen.data.records import Record


def save(path: Path, values: np.ndarray, **options: object) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def record(image: Path, *masks: Path) -> Record:
    return Record("a", image, masks, "a", "", {})


def half_white(dtype: type = np.uint8, white: int = 255) -> np.ndarray:
    values = np.zeros((32, 48), dtype=dtype)
    values[:, 24:] = white
    return values


@pytest.mark.parametrize("px", [16, 32, 64])
def test_the_whole_image_is_squeezed_into_the_square(tmp_path: Path, px: int) -> None:
    path = save(tmp_path / "a.png", half_white())
    image, mask = images.load(record(path, path), px)
    assert image.shape == (3, px, px)
    assert image.dtype == mask.dtype == torch.uint8
    assert type(image) is torch.Tensor
    assert image[:, :, 0].max() == 0
    assert image[:, :, -1].min() == 255
    assert float(mask.float().mean()) == pytest.approx(0.5, abs=1 / px)


@pytest.mark.parametrize(
    "mask",
    [
        half_white().astype(bool),
        half_white(white=1),
        half_white(np.uint16, 65535),
        np.repeat(half_white()[..., None], 4, axis=2)
        | np.array([0, 0, 0, 255], "uint8"),
    ],
    ids=["boolean", "0 and 1", "16 bit", "RGBA"],
)
def test_masks_of_any_kind_read_the_same(tmp_path: Path, mask: np.ndarray) -> None:
    plain = save(tmp_path / "a.png", half_white())
    other = save(tmp_path / "m.png", mask)
    expected = images.load(record(plain, plain), 24)[1]
    assert torch.equal(images.load(record(plain, other), 24)[1], expected)


def test_jpeg_noise_is_not_part_of_a_mask(tmp_path: Path) -> None:
    values = half_white()
    rng = np.random.default_rng(0)
    noisy = np.abs(values.astype(int) - rng.integers(0, 9, values.shape)).astype(
        np.uint8
    )
    plain = save(tmp_path / "a.png", values)
    path = save(tmp_path / "m.jpg", noisy, quality=80)
    expected = images.load(record(plain, plain), 24)[1]
    assert torch.equal(images.load(record(plain, path), 24)[1], expected)


def test_several_masks_are_united(tmp_path: Path) -> None:
    left = save(tmp_path / "l.png", np.ascontiguousarray(half_white()[:, ::-1]))
    right = save(tmp_path / "r.png", half_white())
    assert images.load(record(left, left, right), 16)[1].min() == 1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_images_of_any_mode_become_three_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(half_white()).convert(mode).save(path)
    image, mask = images.load(record(path), 16)
    assert image.shape[0] == 3
    assert mask.sum() == 0


def test_sixteen_bits_keep_their_greys(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", half_white(np.uint16, 32768))
    image, _ = images.load(record(path), 16)
    assert int(image.max()) == 128


def test_pixels_come_back_from_the_networks_range() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    floats = images.as_input(pixels)
    assert (float(floats.min()), float(floats.max())) == (-1, 1)
    assert torch.equal(images.as_uint8(floats), pixels)
    assert int(images.as_uint8(torch.tensor(7.0))) == 255


def test_a_digest_follows_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1")
    (tmp_path / "c").write_bytes(b"2")
    a, b, c = (images.file_digest(tmp_path / name) for name in "abc")
    assert a == b != c
