"""A mask reads the same whatever tool wrote it, or is refused by name."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pictures import record, save, scene, tiff
from vgmedgen.data import images
from vgmedgen.errors import DataError

COLOURS, LESION = scene()
ONES = LESION.astype(np.uint8)


def palette(*colours: tuple[int, int, int], labels: np.ndarray = ONES) -> Image.Image:
    image = Image.fromarray(labels, "P")
    flat = [part for colour in colours for part in colour]
    image.putpalette(flat + [0] * (768 - len(flat)))
    return image


def drawn(*colour: int, behind: tuple[int, ...] = ()) -> np.ndarray:
    values = np.zeros((*LESION.shape, len(colour)), np.uint8)
    values[...] = behind or 0
    values[LESION] = colour
    return values


def clear(image: Image.Image, key: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=key)
    return stream.getvalue()


def soft() -> np.ndarray:
    """The mask with a soft edge, from four times its size."""
    big = Image.fromarray(scene(96 * 4, 72 * 4)[1])
    return np.asarray(big.convert("L").resize((96, 72), Image.Resampling.BOX))


KINDS = {
    "black and white": ONES * 255,
    "boolean": LESION,
    "labels 0 and 1": ONES,
    "labels 0 and 2": ONES * 2,
    "labels 0 and 100": ONES * 100,
    "labels 0 and 127": ONES * 127,
    "16 bits, 1": ONES.astype(np.uint16),
    "16 bits, 255": ONES.astype(np.uint16) * 255,
    "16 bits, 65535": ONES.astype(np.uint16) * 65535,
    "palette of VOC": palette((0, 0, 0), (128, 0, 0)),
    "palette black and white": palette((0, 0, 0), (255, 255, 255)),
    "palette in another order": palette((255, 255, 255), (0, 0, 0), labels=1 - ONES),
    "palette of one colour": palette((0, 0, 0), (0, 0, 0)),
    "palette of greys": palette((0, 0, 0), (1, 1, 1)),
    "red": drawn(255, 0, 0),
    "green": drawn(0, 255, 0),
    "blue": drawn(0, 0, 255),
    "magenta": drawn(255, 0, 255),
    "a dark colour": drawn(1, 0, 2),
    "white with opaque alpha": drawn(255, 255, 255, 255, behind=(0, 0, 0, 255)),
    "in alpha, black": drawn(0, 0, 0, 255),
    "in alpha, white": drawn(255, 255, 255, 255, behind=(255, 255, 255, 0)),
    "red on nothing": drawn(255, 0, 0, 255),
    "grey in alpha": Image.merge(
        "LA", [Image.new("L", (96, 72))] * 1 + [Image.fromarray(ONES * 255)]
    ),
    "grey and alpha": Image.merge(
        "LA", [Image.fromarray(ONES * 255), Image.new("L", (96, 72), 255)]
    ),
    "soft edge": soft(),
    "soft red edge": np.stack([soft(), soft() * 0, soft() * 0], -1),
    "soft edge in alpha": np.stack([soft() * 0] * 3 + [soft()], -1),
    "soft edge of 16 bits": soft().astype(np.uint16) * 257,
}


@pytest.mark.parametrize("name", KINDS)
def test_masks_of_any_tool_read_the_same(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "m.png", KINDS[name])
    found = images.read_mask(path)
    if name.startswith("soft"):
        assert np.array_equal(found, soft() >= 128)
    else:
        assert np.array_equal(found, LESION)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.uint16])
@pytest.mark.parametrize("white", [1, 2, 200, 255])
def test_masks_of_wide_numbers_read_the_same(
    tmp_path: Path, dtype: type, white: int
) -> None:
    path = save(tmp_path / "m.tif", ONES.astype(dtype) * dtype(white))
    assert np.array_equal(images.read_mask(path), LESION)


@pytest.mark.parametrize("suffix", ["bmp", "gif", "tif", "webp", "jp2"])
def test_masks_of_other_formats_read_the_same(tmp_path: Path, suffix: str) -> None:
    options = {"webp": {"lossless": True}}.get(suffix, {})
    path = save(tmp_path / f"m.{suffix}", ONES * 255, **options)
    assert np.array_equal(images.read_mask(path), LESION)


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (0, 255, 0)])
def test_jpeg_masks_lose_only_their_edge(
    tmp_path: Path, quality: int, colour: tuple[int, int, int]
) -> None:
    path = save(tmp_path / "m.jpg", drawn(*colour), quality=quality)
    found = images.read_mask(path)
    assert (found != LESION).mean() < 0.02
    if colour == (255, 255, 255):  # saved anew without loss, as sets on the web are
        with Image.open(path) as opened:
            again = save(tmp_path / "again.png", np.asarray(opened.convert("L")))
        assert np.array_equal(images.read_mask(again), found)


def thirds(*values: int, dtype: type = np.uint8) -> np.ndarray:
    """Labels in bands that are wider than any edge."""
    return np.repeat(np.array(values, dtype=dtype), 24)[:, None].repeat(64, axis=1)


def bordered(inside: int, border: int) -> np.ndarray:
    """A square with a border of three pixels, as trimaps and VOC have."""
    values = np.zeros((64, 64), np.uint8)
    values[13:51, 13:51] = border
    values[16:48, 16:48] = inside
    return values


def mixed() -> np.ndarray:
    """Half of the lesion red, half of it green."""
    values = drawn(255, 0, 0)
    values[:20] = values[:20, :, [1, 0, 2]]
    return values


@pytest.mark.parametrize(
    "mask",
    [
        thirds(0, 1, 2),
        thirds(0, 128, 255),
        thirds(0, 100, 200),
        thirds(0, 1, 255),
        thirds(0, 100, 127),
        thirds(*range(9)),
        thirds(0, 1000, 65535, dtype=np.uint16),
        thirds(0, 300, dtype=np.uint16) + thirds(1, 1, dtype=np.uint16),
        thirds(1, 2),
        thirds(128, 255),
        bordered(255, 128),
        bordered(1, 255),
        bordered(2, 1),
        np.tile(np.arange(256, dtype=np.uint8), (64, 1)),
        np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8),
        np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8),
        COLOURS,
        mixed(),
        drawn(255, 0, 0, behind=(255, 255, 255)),
        drawn(253, 231, 36, behind=(68, 1, 84)),
        drawn(255, 0, 0, 255, behind=(0, 255, 0, 255)),
        np.concatenate([COLOURS, 255 - ONES[..., None] * 255], -1),
        palette((255, 0, 0), (0, 255, 0)),
    ],
    ids=[
        *("three labels", "half and full", "100 and 200", "void", "halves", "nine"),
        *("16 bits", "no zero", "one and two", "no black", "trimap", "VOC", "rim"),
        *(
            "a ramp",
            "faint noise",
            "noise",
            "a photograph",
            "two colours",
            "red on white",
        ),
        *("viridis", "red on green", "a cut-out", "palette without black"),
    ],
)
def test_masks_in_doubt_are_refused_by_name(
    tmp_path: Path, mask: np.ndarray | Image.Image
) -> None:
    path = save(tmp_path / "m.png", mask)
    with pytest.raises(DataError, match=r"mask .*m\.png (holds|is) .*save") as caught:
        images.read_mask(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [mixed(), np.stack([thirds(0, 128, 255)] * 3, -1)])
def test_compressed_masks_in_doubt_are_refused_too(
    tmp_path: Path, values: np.ndarray
) -> None:
    path = save(tmp_path / "m.jpg", values, quality=90)
    with pytest.raises(DataError, match=r"mask .*m\.jpg holds"):
        images.read_mask(path)


def test_labels_that_jpeg_has_blurred_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.jpg", ONES, quality=95)
    with pytest.raises(DataError, match=r"m\.jpg holds"):
        images.read_mask(path)


def test_negative_and_missing_numbers_are_refused(tmp_path: Path) -> None:
    for values, sample in (
        (ONES.astype(np.int32) * 2 - 1, 2),
        (np.where(LESION, np.nan, 0).astype(np.float32), 3),
    ):
        path = tiff(tmp_path / "m.tif", values, sample=sample)
        with pytest.raises(DataError, match="negative or no numbers"):
            images.read_mask(path)


def test_a_mask_that_is_the_same_everywhere_is_empty_or_full(tmp_path: Path) -> None:
    for number, value in enumerate((0, 1, 255)):
        values = np.full((16, 16), value, np.uint8)
        for suffix in ("png", "tif"):
            path = save(tmp_path / f"{number}.{suffix}", values)
            assert images.read_mask(path).all() == (value > 0)
    assert not images.read_mask(
        save(tmp_path / "coarse.jpg", np.zeros((16, 16), np.uint8), quality=1)
    ).any()


def test_what_is_transparent_is_no_lesion_whatever_colour_hides_there(
    tmp_path: Path,
) -> None:
    values = drawn(255, 255, 255, 255)
    values[~LESION, :3] = np.random.default_rng(0).integers(
        0, 256, ((~LESION).sum(), 3), dtype=np.uint8
    )
    path = save(tmp_path / "m.png", values)
    assert np.array_equal(images.read_mask(path), LESION)


def test_one_grey_or_place_of_a_palette_may_be_told_as_transparent(
    tmp_path: Path,
) -> None:
    for number, image in enumerate(
        (Image.fromarray(ONES * 9 + 3), palette((9, 9, 9), (7, 7, 7)))
    ):
        path = tmp_path / f"{number}.png"
        path.write_bytes(clear(image, 3 if number == 0 else 0))
        assert np.array_equal(images.read_mask(path), LESION)


def test_a_lesion_smaller_than_half_a_pixel_is_not_lost(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", np.full((512, 512, 3), 90, np.uint8))
    values = np.zeros((512, 512), np.uint8)
    values[100:103, 200:204] = 255
    mask = save(tmp_path / "m.png", values)
    small = images.load(record(image, mask), 64)[1][0]
    assert small.nonzero().tolist() == [[12, 25]]
