"""Greys of more than 8 bits look as the same picture of 8 bits, or are refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pictures import grey, save, scene, shown, tiff
from vgmedgen.data import images
from vgmedgen.data.pixels import depth
from vgmedgen.errors import DataError

RANGES = {
    "8 bits": lambda g: g.astype(np.uint16),
    "10 bits": lambda g: g.astype(np.uint16) << 2,
    "12 bits": lambda g: g.astype(np.uint16) << 4,
    "12 bits to 4095": lambda g: np.rint(g * (4095 / 255)).astype(np.uint16),
    "14 bits": lambda g: g.astype(np.uint16) << 6,
    "16 bits": lambda g: g.astype(np.uint16) << 8,
    "16 bits to 65535": lambda g: g.astype(np.uint16) * 257,
}


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_words_of_sixteen_bits_show_what_eight_would(
    tmp_path: Path, name: str, suffix: str
) -> None:
    path = save(tmp_path / f"a.{suffix}", RANGES[name](grey()))
    assert np.abs(shown(path).astype(int) - grey()).max() <= 1


@pytest.mark.parametrize("name", RANGES)
def test_whole_numbers_of_32_bits_show_the_same(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "a.tif", RANGES[name](grey()).astype(np.int32))
    assert np.abs(shown(path).astype(int) - grey()).max() <= 1


@pytest.mark.parametrize("top", [1, 255, 1023, 4095, 65535])
def test_numbers_with_fractions_show_the_same(tmp_path: Path, top: int) -> None:
    values = (grey() * (top / 255)).astype(np.float32)
    path = save(tmp_path / "a.tif", values)
    assert np.abs(shown(path).astype(int) - grey()).max() <= 1


@pytest.mark.parametrize("shift", [0, 2, 4, 8])
@pytest.mark.parametrize("suffix", ["png", "tif", "compressed.tif"])
def test_colours_of_sixteen_bits_keep_the_bits_that_are_used(
    tmp_path: Path, shift: int, suffix: str
) -> None:
    colours, _ = scene()
    values = colours.astype(np.uint16) << shift
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        write_png(path, values)
    else:
        tiff(path, values, kind=2)
        if suffix.startswith("c"):
            recompress(path)
    assert np.array_equal(images.read(path), colours)


def test_grey_with_transparency_of_sixteen_bits_keeps_its_bits(tmp_path: Path) -> None:
    both = np.stack([grey().astype(np.uint16) << 4, np.full_like(grey(), 0)], -1)
    both[..., 1] = 65535
    assert np.array_equal(shown(write_png(tmp_path / "a.png", both)), grey())


def write_png(path: Path, values: np.ndarray) -> Path:
    """Words of 16 bits as a PNG of grey, grey and alpha, or colours."""
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        end = zlib.crc32(name + content).to_bytes(4, "big")
        return struct.pack(">L", len(content)) + name + content + end

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    head = struct.pack(">LLBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
    return path


def recompress(path: Path) -> None:
    """The same TIFF with its strip deflated, which another decoder reads."""
    import struct
    import zlib

    content = path.read_bytes()
    start = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[start : start + 2], "little")
    told = {}
    for place in range(start + 2, start + 2 + 12 * count, 12):
        told[struct.unpack_from("<H", content, place)[0]] = place
    length = struct.unpack_from("<L", content, told[279] + 8)[0]
    squeezed = zlib.compress(content[8 : 8 + length])
    raw = bytearray(content + squeezed)
    struct.pack_into("<L", raw, told[273] + 8, len(content))
    struct.pack_into("<L", raw, told[279] + 8, len(squeezed))
    struct.pack_into("<H", raw, told[259] + 8, 8)
    path.write_bytes(raw)


def test_tiffs_of_12_bits_show_the_same_however_dark(tmp_path: Path) -> None:
    dark = grey() // 4
    words = (dark.astype(np.uint16) << 4).reshape(-1, 2)
    low, high = words[:, 0], words[:, 1]
    packed = np.stack([low >> 4, (low & 15) << 4 | high >> 8, high & 255], -1)
    path = tiff(tmp_path / "a.tif", packed.astype(np.uint8).reshape(72, 144))
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[4:8], "little") + 2
    content[start + 8 : start + 10] = (96).to_bytes(2, "little")  # wide
    content[start + 24 + 8 : start + 24 + 10] = (12).to_bytes(2, "little")  # bits
    path.write_bytes(content)
    assert np.array_equal(shown(path), dark)


@pytest.mark.parametrize(
    "values",
    [
        grey().astype(np.int16) - 100,
        grey().astype(np.int32) - 1024,
        grey().astype(np.int32) << 16,
        np.where(grey() > 100, np.nan, 0.5).astype(np.float32),
        np.where(grey() > 100, np.inf, 0.5).astype(np.float32),
        grey().astype(np.float32) / 100 - 1,
        (grey() / 255 * 1.7).astype(np.float32),
        (grey() % 5).astype(np.uint16),
        (grey() // 8).astype(np.uint16) + 32768,
        np.full((9, 9), 1000, np.uint16),
    ],
    ids=[
        *("signed 16", "signed 32", "beyond 16", "gaps", "endless", "negative"),
        *("little above 1", "labels", "a narrow band", "one grey"),
    ],
)
def test_what_leaves_open_which_greys_are_meant_is_refused(
    tmp_path: Path, values: np.ndarray
) -> None:
    path = tmp_path / "a.tif"
    kinds = {"i": 2, "u": 1, "f": 3}
    tiff(path, values, sample=kinds[values.dtype.kind])
    with pytest.raises(DataError, match=r"a\.tif .*(black and white|finite|flat)"):
        images.read(path)


def test_a_black_image_stays_black(tmp_path: Path) -> None:
    for number, kind in enumerate((np.uint8, np.uint16, np.int32, np.float32)):
        path = save(tmp_path / f"{number}.tif", np.zeros((9, 9), kind))
        assert shown(path).max() == 0


def test_a_dark_image_of_eight_bits_stays_as_it_is(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", grey() // 64)
    assert np.array_equal(shown(path), grey() // 64)


def test_images_of_a_series_keep_their_relative_brightness(tmp_path: Path) -> None:
    bright = grey().astype(np.uint16) << 4
    paths = [save(tmp_path / f"{n}.png", bright // n * n // n) for n in (1, 2, 3)]
    means = [shown(path).mean() for path in paths]
    assert means[0] == pytest.approx(grey().mean(), abs=1)
    assert means[1] * 2 == pytest.approx(means[0], abs=2)  # 12 bits both
    assert means[2] * 3 == pytest.approx(means[0], abs=3)


@pytest.mark.parametrize(
    ("top", "bits"), [(0, 8), (255, 8), (256, 10), (1024, 12), (4096, 14), (65535, 16)]
)
def test_the_depth_is_the_smallest_usual_one(top: int, bits: int) -> None:
    assert depth.smallest(top) == bits


@pytest.mark.parametrize(("dtype", "sample"), [(np.uint16, 1), (np.float32, 3)])
def test_a_tiff_with_white_as_zero_is_not_read_inverted(
    tmp_path: Path, dtype: type, sample: int
) -> None:
    plain = tiff(tmp_path / "a.tif", 255 - grey(), kind=0)
    assert np.array_equal(shown(plain), grey())
    wide = tiff(tmp_path / "b.tif", grey().astype(dtype), kind=0, sample=sample)
    with pytest.raises(DataError, match="white as 0"):
        images.read(wide)


def test_signed_bytes_are_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", grey(), sample=2)
    with pytest.raises(DataError, match="signed numbers of 8 bits"):
        images.read(path)


@pytest.mark.parametrize("shift", [0, 4, 8])
def test_jpeg_2000_of_sixteen_bits_shows_the_same(tmp_path: Path, shift: int) -> None:
    path = tmp_path / "a.jp2"
    Image.fromarray(grey().astype(np.uint16) << shift).save(path, irreversible=False)
    assert np.array_equal(shown(path), grey())
