"""Colours and transparency of any kind: the right RGB, or a refusal."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.pictures import save, scene, tiff
from vgmedgen.data import images
from vgmedgen.errors import DataError

COLOURS, LESION = scene()


def test_palettes_show_their_colours(tmp_path: Path) -> None:
    labels = LESION.astype(np.uint8)
    image = Image.fromarray(labels, "P")
    image.putpalette([10, 20, 30, 200, 100, 50] + [0] * 762)
    expected = np.array([[10, 20, 30], [200, 100, 50]], np.uint8)[labels]
    for suffix in ("png", "gif", "bmp", "tif"):
        path = save(tmp_path / f"a.{suffix}", image)
        assert np.array_equal(images.read(path), expected)


def test_single_bits_are_black_and_white(tmp_path: Path) -> None:
    for suffix in ("png", "tif", "bmp"):
        path = save(tmp_path / f"a.{suffix}", LESION)
        assert np.array_equal(images.read(path)[..., 0], LESION * 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opaque_alpha_changes_nothing(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    path = save(tmp_path / "a.png", image)
    expected = np.asarray(Image.fromarray(COLOURS).convert(mode[:-1]).convert("RGB"))
    assert np.array_equal(images.read(path), expected)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_what_hides_under_transparency_never_trains(
    tmp_path: Path, suffix: str
) -> None:
    alpha = np.where(LESION, 255, 0).astype(np.uint8)
    values = np.concatenate([COLOURS, alpha[..., None]], -1)
    path = save(tmp_path / f"a.{suffix}", values)
    with pytest.raises(DataError, match="transparent in places"):
        images.read(path)


@pytest.mark.parametrize("mode", ["P", "L", "1", "RGB"])
def test_transparency_told_as_a_colour_counts_too(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(LESION.astype(np.uint8) * 255).convert(mode)
    key: object = (0, 0, 0) if mode == "RGB" else 0
    path = save(tmp_path / "a.png", image, transparency=key)
    with pytest.raises(DataError, match="transparent in places"):
        images.read(path)


def test_cmyk_without_a_profile_is_the_complement_of_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS).convert("CMYK")
    path = save(tmp_path / "a.tif", image)
    assert np.array_equal(images.read(path), COLOURS)
    path = save(tmp_path / "a.jpg", image, quality=95, subsampling=0)
    assert np.abs(images.read(path).astype(int) - COLOURS).mean() < 2


def test_lab_becomes_the_rgb_that_it_means(tmp_path: Path) -> None:
    # CIELAB of sRGB red under D50, from the definition: 54.3, 80.8, 69.9
    values = np.zeros((8, 8, 3), np.uint8)
    values[...] = (round(54.29 * 2.55), 81, 70)
    path = tiff(tmp_path / "a.tif", values, kind=8)
    found = images.read(path)[0, 0].astype(int)
    assert np.abs(found - (255, 0, 0)).max() <= 6


def profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def swapped() -> bytes:
    """sRGB with its red and blue exchanged, so that a picture shows that it counts."""
    raw = bytearray(profile("sRGB").replace(b"s\0R\0G\0B", b"t\0E\0S\0T"))
    raw = raw.replace(b"sRGB", b"tEST")
    place = {bytes(raw[at : at + 4]): at for at in range(132, 132 + 12 * 20, 12)}
    for one, other in ((b"rXYZ", b"bXYZ"),):
        left, right = place[one], place[other]
        raw[left : left + 4], raw[right : right + 4] = other, one
    return bytes(raw)


def test_srgb_profiles_change_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", COLOURS, icc_profile=profile("sRGB"))
    assert np.array_equal(images.read(path), COLOURS)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_another_profile_counts_for_images_and_not_for_masks(
    tmp_path: Path, suffix: str
) -> None:
    path = save(tmp_path / f"a.{suffix}", COLOURS, icc_profile=swapped())
    found = images.read(path).astype(int)
    assert np.abs(found - COLOURS[..., ::-1]).max() <= 3
    mask = np.zeros((9, 9, 3), np.uint8)
    mask[3:6, 3:6] = (255, 0, 0)
    path = save(tmp_path / f"m.{suffix}", mask, icc_profile=swapped())
    assert images.read_mask(path).sum() == 9


def test_a_profile_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    for content in (profile("LAB"), b"no profile at all" * 20):
        path = save(tmp_path / "a.png", COLOURS, icc_profile=content)
        with pytest.raises(DataError, match="colour profile"):
            images.read(path)


def test_colours_of_16_bits_in_planes_apart_are_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", COLOURS.astype(np.uint16), kind=2)
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[4:8], "little") + 2
    entry = start + 12 * 8  # that of the strip's length becomes that of the planes
    content[entry : entry + 2] = (284).to_bytes(2, "little")
    content[entry + 2 : entry + 12] = b"\3\0\1\0\0\0\2\0\0\0"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tif"):
        images.read(path)
