"""DICOM as training input: right pixels, or one clear line."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.dicoms import content, dataset, encapsulated, save
from vgmedgen.data import dicom, images
from vgmedgen.data.records import Record
from vgmedgen.errors import DataError

JPEG = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
HTJ2K = "1.2.840.10008.1.2.4.201"
MPEG = "1.2.840.10008.1.2.4.102"


def grey(dtype: type = np.uint8, high: int = 256, low: int = 0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(low, high, (23, 17), dtype=dtype)


def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 17, 3), dtype=np.uint8)


def read(tmp_path: Path, data: Dataset) -> np.ndarray:
    return dicom.read_pixels(save(tmp_path / "a.dcm", data))


def shown(tmp_path: Path, data: Dataset) -> np.ndarray:
    """One plane of a grey image."""
    found = read(tmp_path, data)
    assert found.dtype == np.uint8
    assert found.shape == (23, 17, 3)
    assert (found == found[..., :1]).all()
    return found[..., 0]


def refused(path: Path, read: Callable[[Path], Any] = dicom.read_pixels) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_eight_bit_greys_are_read_as_they_are(tmp_path: Path) -> None:
    values = grey()
    assert np.array_equal(shown(tmp_path, dataset(values, "MONOCHROME2")), values)


def test_monochrome_one_is_inverted(tmp_path: Path) -> None:
    values = grey()
    found = shown(tmp_path, dataset(values, "MONOCHROME1"))
    assert np.array_equal(found, 255 - values)


@pytest.mark.parametrize("stored", [10, 12, 16])
def test_sixteen_bits_are_scaled_by_the_bits_that_are_stored(
    tmp_path: Path, stored: int
) -> None:
    values = grey(np.uint16, 1 << stored)
    data = dataset(values, "MONOCHROME2", BitsStored=stored)
    assert np.array_equal(shown(tmp_path, data), values >> (stored - 8))


def test_bits_above_the_stored_ones_are_left_out(tmp_path: Path) -> None:
    values = grey(np.uint16, 4096)
    data = dataset(values | 0xF000, "MONOCHROME2", BitsStored=12)
    assert np.array_equal(shown(tmp_path, data), values >> 4)


def test_signed_values_begin_at_black(tmp_path: Path) -> None:
    values = grey(np.int16, 1 << 15, -(1 << 15))
    expected = (values.astype(int) + (1 << 15)) >> 8
    assert np.array_equal(shown(tmp_path, dataset(values, "MONOCHROME2")), expected)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("LINEAR", lambda x: (x - 39.5) / 399 + 0.5),
        ("LINEAR_EXACT", lambda x: (x - 40) / 400 + 0.5),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 40) / 400))),
    ],
)
@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
def test_the_first_window_is_applied_after_the_rescale(
    tmp_path: Path, shape: str, kind: str, expected: Callable[[Any], Any]
) -> None:
    values = grey(np.uint16, 1500)
    data = dataset(
        values,
        kind,
        RescaleSlope=2,
        RescaleIntercept=-1024,
        WindowCenter=[40, 300],
        WindowWidth=[400, 1500],
        VOILUTFunction=shape,
    )
    bright = np.clip(expected(values * 2.0 - 1024), 0, 1) * 255
    bright = 255 - bright if kind == "MONOCHROME1" else bright
    assert np.ptp(bright) > 20
    assert np.abs(shown(tmp_path, data) - bright).max() <= 0.5 + 1e-9


def lut(entries: np.ndarray, first: int, bits: int = 16) -> Sequence:
    table = Dataset()
    table.LUTDescriptor = [len(entries), first, bits]
    table["LUTDescriptor"].VR = "US"
    table.add_new(0x00283006, "OW", entries.astype(np.uint16).tobytes())
    table.ModalityLUTType = "US"
    return Sequence([table])


def test_lookup_tables_are_applied(tmp_path: Path) -> None:
    table = np.arange(256, dtype=np.uint16)[::-1] * 257
    values = grey()
    voi = dataset(values, "MONOCHROME2", VOILUTSequence=lut(table, 0))
    assert np.array_equal(shown(tmp_path, voi), 255 - values)
    modality = dataset(values, "MONOCHROME2", ModalityLUTSequence=lut(table, 0))
    assert np.array_equal(shown(tmp_path, modality), 255 - values)


@pytest.mark.parametrize("planar", [0, 1])
def test_colours_are_read_in_either_order(tmp_path: Path, planar: int) -> None:
    values = colours()
    data = dataset(values, "RGB", PlanarConfiguration=planar)
    if planar:
        data.PixelData = values.transpose(2, 0, 1).tobytes() + b"\0"
    assert np.array_equal(read(tmp_path, data), values)


def test_colours_of_sixteen_bits_keep_their_high_bits(tmp_path: Path) -> None:
    values = colours().astype(np.uint16) * 257
    assert np.array_equal(read(tmp_path, dataset(values, "RGB")), colours())


def smooth() -> np.ndarray:
    down, right = np.mgrid[0:24, 0:16]
    return np.stack([down * 10, right * 15, 255 - down * 5], -1).astype(np.uint8)


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    full = np.asarray(Image.fromarray(smooth()).convert("YCbCr"))
    found = read(tmp_path, dataset(full, "YBR_FULL"))
    assert np.abs(found.astype(int) - smooth()).max() <= 3


def test_ybr_with_halved_colours_becomes_rgb(tmp_path: Path) -> None:
    doubled = np.repeat(smooth()[:, ::2], 2, axis=1)  # pairs share their colours
    full = np.asarray(Image.fromarray(doubled).convert("YCbCr"))
    pairs = full.reshape(24, 8, 2, 3)
    packed = np.stack(
        [pairs[..., 0, 0], pairs[..., 1, 0], pairs[..., 0, 1], pairs[..., 0, 2]], -1
    )
    data = dataset(full, "YBR_FULL_422")
    data.PixelData = packed.tobytes()
    found = read(tmp_path, data)
    assert np.abs(found.astype(int) - doubled).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_looked_up(tmp_path: Path, bits: int) -> None:
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    data = dataset(grey(), "PALETTE COLOR")
    for place, name in enumerate(("Red", "Green", "Blue")):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        entries = palette[:, place].astype(np.uint16) * (257 if bits == 16 else 1)
        raw = entries.astype(np.uint8 if bits == 8 else np.uint16).tobytes()
        setattr(data, f"{name}PaletteColorLookupTableData", raw)
    assert np.array_equal(read(tmp_path, data), palette[grey()])


def compressed(values: np.ndarray, name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, name, **options)
    return stream.getvalue()


def test_compressed_images_are_read(tmp_path: Path) -> None:
    values = colours()
    lossless = compressed(values, "JPEG2000", irreversible=False, no_jp2=True)
    data = encapsulated(dataset(values, "RGB"), lossless, JPEG_2000)
    assert np.array_equal(read(tmp_path, data), values)
    lossy = compressed(smooth(), "JPEG", quality=95, subsampling=0)
    data = encapsulated(dataset(smooth(), "YBR_FULL"), lossy, JPEG)
    assert np.abs(read(tmp_path, data).astype(int) - smooth()).max() <= 12
    data = dataset(values, "RGB")
    data.compress(RLE, encoding_plugin="pydicom", generate_instance_uid=False)
    assert np.array_equal(read(tmp_path, data), values)


def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    raw = content(dataset(colours(), "RGB"))
    (tmp_path / "a.png").write_bytes(raw)
    (tmp_path / "IM0001").write_bytes(raw)
    Image.fromarray(colours()).save(tmp_path / "b.png")
    for name, expected in (("a.png", True), ("IM0001", True), ("b.png", False)):
        assert dicom.is_dicom(tmp_path / name) is expected
        found, _ = images.load(Record("a", tmp_path / name, (), "a", "", {}), 16)
        plain, _ = images.load(Record("b", tmp_path / "b.png", (), "b", "", {}), 16)
        assert torch.equal(found, plain)


@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("dtype", "white"), [(np.uint8, 1), (np.uint8, 255), (np.uint16, 1)]
)
def test_masks_of_any_kind_read_the_same(
    tmp_path: Path, kind: str, dtype: type, white: int
) -> None:
    lesion = grey() > 99
    drawn = lesion ^ (kind == "MONOCHROME1")
    path = save(tmp_path / "m.dcm", dataset(drawn.astype(dtype) * white, kind))
    assert np.array_equal(dicom.read_mask(path), lesion)


def test_a_mask_of_single_bits_is_read(tmp_path: Path) -> None:
    lesion = grey() > 99
    data = dataset(lesion.astype(np.uint8), "MONOCHROME2")
    data.BitsAllocated, data.BitsStored, data.HighBit = 1, 1, 0
    packed = np.packbits(lesion.reshape(-1), bitorder="little").tobytes()
    data.PixelData = packed + b"\0" * (len(packed) % 2)
    assert np.array_equal(dicom.read_mask(save(tmp_path / "m.dcm", data)), lesion)


def without(name: str) -> Dataset:
    data = dataset(grey(), "MONOCHROME2")
    delattr(data, name)
    return data


def claimed(values: np.ndarray, **more: Any) -> Dataset:
    return dataset(values, "MONOCHROME2", **more)


def squeezed(frame: bytes, syntax: str, values: np.ndarray | None = None) -> Dataset:
    values = colours() if values is None else values
    kind = "RGB" if values.ndim == 3 else "MONOCHROME2"
    return encapsulated(dataset(values, kind), frame, syntax)


BOMB = b"".join(  # 16 bytes of header, then runs of 128 bytes each
    [
        (1).to_bytes(4, "little"),
        (64).to_bytes(4, "little"),
        bytes(56),
        b"\x81\0" * 500_000,
    ]
)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (claimed(grey(), NumberOfFrames=7), ("7 frames", "single frames")),
        (claimed(grey(), NumberOfFrames=-1), ("-1 frames",)),
        (dataset(colours(), "HSV"), ("'HSV'", "RGB")),
        (dataset(colours(), "YBR_PARTIAL_420"), ("'YBR_PARTIAL_420'",)),
        (without("PhotometricInterpretation"), ("''",)),
        (without("PixelData"), ("no pixel data",)),
        (without("Rows"), ("damaged or incomplete",)),
        (claimed(grey(), Rows=60000, Columns=60000), ("60000x60000", "64000000")),
        (claimed(grey(), Rows=7000, Columns=7000), ("damaged or incomplete",)),
        (claimed(grey(), Rows=0), ("17x0",)),
        (claimed(grey(), BitsStored=17, HighBit=16), ("17 in 8 bits",)),
        (claimed(grey(np.uint32)), ("32 in 32 bits",)),
        (claimed(grey(), SamplesPerPixel=3), ("3 samples",)),
        (claimed(grey(), RescaleSlope="1e400"), ("RescaleSlope",)),
        (claimed(grey(), WindowCenter=1, WindowWidth=-4), ("window",)),
        (dataset(grey(), "PALETTE COLOR"), ("palette",)),
        (squeezed(b"0" * 100, HTJ2K), ("High-Throughput", HTJ2K, "uncompressed")),
        (squeezed(b"0" * 100, MPEG), ("MPEG-4", MPEG)),
        (squeezed(compressed(smooth(), "JPEG"), JPEG), ("16x24", "17x23")),
        (squeezed(compressed(colours(), "JPEG2000"), JPEG_2000), ("JP2", "bare")),
        (squeezed(BOMB, RLE, grey()), ("unpacks to more",)),
        (squeezed(b"00", JPEG), ("cannot be decompressed here", "uncompressed")),
    ],
    ids=lambda value: None if isinstance(value, Dataset) else value[0],
)
def test_what_is_not_one_usual_image_is_refused(
    tmp_path: Path, data: Dataset, words: tuple[str, ...]
) -> None:
    path = save(tmp_path / "a.dcm", data)
    for reader in (dicom.read_pixels, dicom.read_mask):
        told = refused(path, reader)
        assert all(word in told for word in words), told


def test_what_is_no_dicom_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    for raw in (b"", b"DICM", bytes(400), compressed(colours(), "PNG")):
        path.write_bytes(raw)
        assert "lacks the word DICM" in refused(path)
        assert "lacks the word DICM" in refused(path, dicom.identity)
    assert "cannot be read" in refused(tmp_path / "absent.dcm", dicom.identity)
    assert "cannot be read" in refused(tmp_path / "absent.png", dicom.is_dicom)


def test_a_deflated_file_is_refused_before_it_inflates(tmp_path: Path) -> None:
    data = dataset(grey(), "MONOCHROME2", syntax="1.2.840.10008.1.2.1.99")
    path = save(tmp_path / "a.dcm", data)
    assert "deflated" in refused(path)
    assert "deflated" in refused(path, dicom.identity)


def test_a_file_that_is_too_large_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    with path.open("wb") as stream:
        stream.truncate(dicom.MOST_BYTES + 1)  # a hole, no bytes on disk
    assert str(dicom.MOST_BYTES) in refused(path)


def test_a_compressed_frame_that_is_larger_than_told_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(*_: Any, **__: Any) -> None:
        raise AssertionError("the decoder was called")

    huge = compressed(np.zeros((5000, 5000), np.uint8), "JPEG")
    path = save(tmp_path / "a.dcm", squeezed(huge, JPEG, grey()))
    bomb = save(tmp_path / "b.dcm", squeezed(BOMB, RLE, grey()))
    monkeypatch.setattr(pydicom.pixels.decoders.base.Decoder, "as_array", unpack)
    assert "5000x5000" in refused(path)
    assert "unpacks" in refused(bomb)


def test_sequences_without_end_are_refused(tmp_path: Path) -> None:
    data = dataset(grey(), "MONOCHROME2")
    raw = content(data)
    opened = bytes.fromhex("10004011") + b"SQ\0\0" + b"\xff" * 4
    item = bytes.fromhex("feff00e0ffffffff")
    inside = (opened + item) * 3000
    mark = raw.index(bytes.fromhex("28000200"))
    path = tmp_path / "a.dcm"
    path.write_bytes(raw[:mark] + inside + raw[mark:])
    assert "damaged" in refused(path)
    assert "damaged" in refused(path, dicom.identity)


SEEDS = {
    "explicit": lambda: dataset(
        grey(np.uint16, 4096),
        "MONOCHROME2",
        BitsStored=12,
        WindowCenter=[9, 8],
        WindowWidth=[400, 20],
        ModalityLUTSequence=lut(np.arange(4096), 0),
        PatientName="Doe^Jane",
    ),
    "implicit": lambda: dataset(colours(), "RGB", syntax="1.2.840.10008.1.2"),
    "jpeg": lambda: squeezed(compressed(colours(), "JPEG"), JPEG),
    "jpeg 2000": lambda: squeezed(
        compressed(colours(), "JPEG2000", no_jp2=True), JPEG_2000
    ),
    "rle": lambda: squeezed(BOMB[:64] + b"\x81\0" * 3 + b"\xfa\0", RLE, grey()),
}


@pytest.mark.parametrize("name", SEEDS)
def test_damage_anywhere_ends_as_one_line(tmp_path: Path, name: str) -> None:
    whole = content(SEEDS[name]())
    rng = np.random.default_rng(0)
    path = tmp_path / "a.dcm"
    told: list[str] = []  # empty where the file was read
    for turn in range(300):
        raw = bytearray(whole)
        if turn % 3 == 0:
            del raw[int(rng.integers(len(raw))) :]
        for place in rng.integers(132, len(whole), 1 + turn % 5):
            if place < len(raw):
                raw[place] = rng.integers(256)
        path.write_bytes(raw)
        for reader in (dicom.read_pixels, dicom.identity):
            try:
                reader(path)
                told.append("")
            except DataError as error:
                told.append(str(error))
    assert all("\n" not in line and len(line) < 600 for line in told)
    assert told.count("") > 20
    assert sum(map(bool, told)) > 20


def test_every_seed_is_a_whole_image(tmp_path: Path) -> None:
    for name, seed in SEEDS.items():
        assert read(tmp_path, seed()).shape == (23, 17, 3), name
