"""A picture trains upright, however its file says which side is up."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.pictures import record, save, scene
from vgmedgen.data import images
from vgmedgen.errors import DataError

COLOURS, LESION = scene()
MASK = LESION.astype(np.uint8) * 255
TAG = 0x0112
# how a camera that was held so stores an upright picture, by EXIF's definition
STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: np.rot90,
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: lambda a: np.rot90(a, -1),
}


def told(tag: int | str) -> Image.Exif:
    exif = Image.Exif()
    exif[TAG] = tag
    return exif


def turned(path: Path, values: np.ndarray, tag: int, **options: object) -> Path:
    stored = np.ascontiguousarray(STORED[tag](values))
    return save(path, stored, exif=told(tag), **options)


@pytest.mark.parametrize("tag", STORED)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "deflated.tif", "a.webp"])
def test_every_orientation_is_read_upright(tmp_path: Path, tag: int, name: str) -> None:
    options = {"a.webp": {"lossless": True}}.get(name, {})
    if name.startswith("deflated"):
        options = {"compression": "tiff_deflate"}
    path = turned(tmp_path / name, COLOURS, tag, **options)
    assert np.array_equal(images.read(path), COLOURS)
    mask = turned(tmp_path / f"mask-{name}", MASK, tag, **options)
    assert np.array_equal(images.read_mask(mask), LESION)


@pytest.mark.parametrize("tag", STORED)
def test_every_orientation_of_a_jpeg_is_read_upright(tmp_path: Path, tag: int) -> None:
    path = turned(tmp_path / "a.jpg", COLOURS, tag, quality=95, subsampling=0)
    assert np.abs(images.read(path).astype(int) - COLOURS).max() < 40
    assert np.abs(images.read(path).astype(int) - COLOURS).mean() < 2


@pytest.mark.parametrize("tag", STORED)
def test_wide_greys_palettes_and_alpha_are_turned_as_well(
    tmp_path: Path, tag: int
) -> None:
    grey = COLOURS[..., 0].astype(np.uint16) << 4
    for suffix in ("png", "tif"):
        path = turned(tmp_path / f"a.{suffix}", grey, tag)
        assert np.array_equal(images.read(path)[..., 0], COLOURS[..., 0])
    stored = np.ascontiguousarray(STORED[tag](LESION.astype(np.uint8)))
    image = Image.fromarray(stored, "P")
    image.putpalette([0, 0, 0, 0, 0, 0] + [0] * 762)  # only the places differ
    assert np.array_equal(
        images.read_mask(save(tmp_path / "p.png", image, exif=told(tag))), LESION
    )
    clear = np.zeros((*LESION.shape, 4), np.uint8)
    clear[..., 3] = MASK
    assert np.array_equal(
        images.read_mask(turned(tmp_path / "c.png", clear, tag)), LESION
    )


def test_image_and_mask_may_be_stored_differently(tmp_path: Path) -> None:
    upright = images.load(
        record(save(tmp_path / "a.png", COLOURS), save(tmp_path / "m.png", MASK)), 32
    )
    for image, mask in ((6, 1), (1, 8), (3, 3), (5, 7)):
        one = turned(tmp_path / "b.png", COLOURS, image)
        other = turned(tmp_path / "n.tif", MASK, mask)
        found = images.load(record(one, other), 32)
        assert all((a == b).all() for a, b in zip(upright, found, strict=True))


def test_xmp_tells_it_too(tmp_path: Path) -> None:
    told = PngInfo()
    told.add_itxt(
        "XML:com.adobe.xmp",
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
        'tiff:Orientation="6"/></x:xmpmeta>',
    )
    stored = np.ascontiguousarray(STORED[6](COLOURS))
    path = save(tmp_path / "a.png", stored, pnginfo=told)
    assert np.array_equal(images.read(path), COLOURS)


def test_zero_means_that_nothing_is_known_and_stays(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", COLOURS, exif=told(0))
    assert np.array_equal(images.read(path), COLOURS)


@pytest.mark.parametrize("tag", [9, 99])
def test_an_orientation_that_there_is_not_is_refused(tmp_path: Path, tag: int) -> None:
    path = save(tmp_path / "a.jpg", COLOURS, exif=told(tag))
    with pytest.raises(DataError, match=r"a\.jpg .*which side is up"):
        images.read(path)


def test_exif_data_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(COLOURS).save(stream, "JPEG", exif=told(6))
    content = bytearray(stream.getvalue())
    start = content.index(b"Exif\0\0") + 6
    content[start + 8 : start + 10] = b"\xff\0"  # claims many entries
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg"):
        images.read(path)


def test_a_size_that_does_not_fit_is_told_as_it_stands_upright(tmp_path: Path) -> None:
    image = turned(tmp_path / "a.png", COLOURS, 6)
    mask = save(tmp_path / "m.png", np.ascontiguousarray(STORED[6](MASK)))
    with pytest.raises(DataError, match=r"m\.png is 72x96 .*a\.png is 96x72.*upright"):
        images.load(record(image, mask), 16)
