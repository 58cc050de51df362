"""Whatever is wrong with an image file, only one clear line comes out, and soon."""

import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vgmedgen
from tests.pictures import grey, record, save, scene, tiff
from vgmedgen.data import adapters, images
from vgmedgen.data.pixels import MOST_BYTES, MOST_PIXELS
from vgmedgen.errors import DataError

COLOURS, LESION = scene(24, 18)


def content(name: str, image: Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    (image or Image.fromarray(COLOURS)).save(stream, name, **options)
    return stream.getvalue()


def told() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


WORDS = Image.fromarray(COLOURS[..., 0].astype(np.uint16) << 4)
SEEDS: dict[str, Callable[[], bytes]] = {
    "png": lambda: content("PNG", exif=told()),
    "png of words": lambda: content("PNG", WORDS),
    "png of a palette": lambda: content(
        "PNG", Image.fromarray(COLOURS).quantize(9), transparency=0
    ),
    "jpeg": lambda: content("JPEG", exif=told()),
    "progressive jpeg": lambda: content("JPEG", progressive=True),
    "jpeg of cmyk": lambda: content("JPEG", Image.fromarray(COLOURS).convert("CMYK")),
    "tiff": lambda: content("TIFF", exif=told()),
    "deflated tiff": lambda: content("TIFF", compression="tiff_deflate"),
    "tiff of words": lambda: content("TIFF", WORDS),
    "tiff of jpeg": lambda: content("TIFF", compression="jpeg"),
    "tiff of lzw": lambda: content("TIFF", compression="tiff_lzw"),
    "gif": lambda: content("GIF"),
    "bmp": lambda: content("BMP"),
    "webp": lambda: content("WEBP", exif=told()),
    "webp without loss": lambda: content("WEBP", lossless=True),
    "jpeg 2000": lambda: content("JPEG2000"),
    "ppm": lambda: content("PPM"),
}
ROUNDS = int(os.environ.get("VGMEDGEN_FUZZ", "120"))  # of each kind of file


def damaged(whole: bytes, turns: int, seed: int = 0) -> Iterator[bytes]:
    """The file with bytes changed, cut off, doubled or left out."""
    rng = np.random.default_rng(seed)
    for turn in range(turns):
        raw = bytearray(whole)
        for _ in range(1 + turn % 4):
            place = int(rng.integers(len(raw)))
            raw[place] = rng.integers(256) if turn % 2 else raw[place] ^ 1 << turn % 8
        place = int(rng.integers(len(raw)))
        if turn % 7 == 0:
            del raw[place:]
        elif turn % 7 == 1:
            del raw[place : place + 1 + turn % 5]
        elif turn % 7 == 2:
            raw[place:place] = raw[place : place + 64]
        yield bytes(raw)


@pytest.mark.parametrize("name", SEEDS)
def test_damage_anywhere_ends_as_one_line(tmp_path: Path, name: str) -> None:
    whole = SEEDS[name]()
    path = tmp_path / "a.png"  # whatever the name says
    path.write_bytes(whole)
    said: list[str] = []
    if "palette" not in name:
        assert images.read(path).shape[2] == 3
    for raw in damaged(whole, ROUNDS):
        path.write_bytes(raw)
        for reader in (images.read, images.read_mask):
            try:
                reader(path)
            except DataError as error:
                said.append(str(error))
    assert said
    assert all(line.count("a.png") >= 1 for line in said)
    assert all("\n" not in line and len(line) < 600 for line in said)


def test_a_png_is_held_to_its_checksums(tmp_path: Path) -> None:
    whole = content("PNG", Image.fromarray(grey()))
    path = tmp_path / "a.png"
    for place in range(len(whole) - 60, len(whole) - 16):  # pixels
        raw = bytearray(whole)
        raw[place] ^= 1
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"a\.png cannot be read.*checksum"):
            images.read(path)


def test_a_tiff_with_a_damaged_tag_is_named_by_a_whole_dataset(tmp_path: Path) -> None:
    path = save(tmp_path / "keep.tif", COLOURS)
    raw = bytearray(path.read_bytes())
    start = int.from_bytes(raw[4:8], "little")
    raw[start + 2 + 2 : start + 2 + 4] = b"\x05\0"  # a width that is a fraction
    path.write_bytes(raw)
    (tmp_path / "manifest.csv").write_text("image,caption\nkeep.tif,made\n")
    [one] = adapters.read("table", tmp_path).records
    with pytest.raises(DataError, match=r"keep\.tif cannot be read as an image"):
        images.load(one, 16)


PAGES = [Image.fromarray(COLOURS), Image.fromarray(COLOURS[::-1].copy())]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {"duration": 9}),
        ("PNG", {}),
        ("PNG", {"default_image": True}),
        ("WEBP", {"lossless": True}),
        ("MPO", {}),
    ],
)
def test_several_pages_or_frames_are_refused(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    path = tmp_path / "a.img"
    PAGES[0].save(path, name, save_all=True, append_images=PAGES[1:], **options)
    for reader in (images.read, images.read_mask):
        with pytest.raises(DataError, match=r"a\.img holds more than one picture"):
            reader(path)


@pytest.mark.parametrize("name", ["TIFF", "GIF", "PNG", "WEBP"])
def test_one_page_saved_as_one_of_several_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.img"
    options = {"lossless": True} if name == "WEBP" else {}
    PAGES[0].save(path, name, save_all=True, **options)
    assert images.read(path).shape == COLOURS.shape


def test_the_preview_that_a_camera_adds_is_no_second_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    small = PAGES[1].resize((12, 9))
    PAGES[0].save(path, "MPO", save_all=True, append_images=[small], quality=95)
    found = images.read(path)
    assert np.abs(found.astype(int) - COLOURS).mean() < 4


def big(width: int, height: int) -> dict[str, bytes]:
    """Files of few bytes that claim many pixels."""
    image = Image.new("1", (width, height))
    return {
        "png": content("PNG", image),
        "tif": content("TIFF", image, compression="group4"),
        "gif": content("GIF", Image.new("L", (9, 9)))[:6]
        + width.to_bytes(2, "little")
        + height.to_bytes(2, "little")
        + content("GIF", Image.new("L", (9, 9)))[10:],
        "bmp": b"BM"
        + bytes(8)
        + (54).to_bytes(4, "little")
        + (40).to_bytes(4, "little")
        + width.to_bytes(4, "little")
        + height.to_bytes(4, "little")
        + b"\1\0\x18\0"
        + bytes(24),
    }


@pytest.mark.parametrize("suffix", ["png", "tif", "gif", "bmp"])
@pytest.mark.parametrize("side", [8100, 13000, 16000])
def test_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, suffix: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(big(side, side)[suffix])
    assert path.stat().st_size < 10_000_000

    def decode(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(Image.Image, "load", decode)
    with pytest.raises(DataError, match=rf"a\.{suffix} .*pixels.* {MOST_PIXELS}"):
        images.read(path)


def test_a_tile_larger_than_its_image_is_refused(tmp_path: Path) -> None:
    more = b"\x42\x01\x04\0\1\0\0\0" + (60000).to_bytes(4, "little")
    more += b"\x43\x01\x04\0\1\0\0\0" + (60000).to_bytes(4, "little")
    path = tiff(tmp_path / "a.tif", COLOURS[..., 0], more=more)
    with pytest.raises(DataError, match=r"a\.tif"):
        images.read(path)


def test_a_file_that_is_too_large_or_none_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)  # a hole, no bytes on disk
    with pytest.raises(DataError, match=str(MOST_BYTES)):
        images.read(path)
    pipe = tmp_path / "b.png"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="not a regular file"):
        images.load(record(pipe), 16)


def test_a_jpeg_of_thousands_of_scans_is_not_decoded(tmp_path: Path) -> None:
    whole = content("JPEG", Image.new("L", (2000, 2000)), progressive=True)
    last = whole.rindex(b"\xff\xda")
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:last] + whole[last:-2] * 5000 + whole[-2:])
    start = time.process_time()
    with pytest.raises(DataError, match="scans"):
        images.read(path)
    assert time.process_time() - start < 5  # of this process alone, whatever else runs


@pytest.mark.parametrize("name", ["ICO", "TGA", "PCX", "EPS", "PSD"])
def test_other_kinds_of_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.png"
    raw = b"8BPS" + bytes(30) if name == "PSD" else content(name)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"none of BMP, GIF, JPEG"):
        images.read(path)


def test_plain_and_unusual_pnm_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    for head in (b"P2 2 1 255 0 9\n", b"P5 2 1 100\n\0\x09"):
        path.write_bytes(head)
        with pytest.raises(DataError, match="save it as PNG"):
            images.read(path)


def test_image_files_are_opened_in_one_place_only() -> None:
    here = Path(vgmedgen.__file__).parent.parent
    homes = {
        path.relative_to(here).as_posix()
        for part in ("vgmedgen", "server", "client", "simulations")
        for path in (here / part).rglob("*.py")
        if "Image.open(" in path.read_text(encoding="utf-8")
    }
    assert homes == {
        "vgmedgen/data/dicom_frame.py",  # the size that a compressed frame claims
        "vgmedgen/data/pixels/opening.py",
        "vgmedgen/data/pixels/words.py",
    }
