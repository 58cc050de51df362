"""DICOM as training input: right pixels, or one clear line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.dataset import Dataset

from tests.dicoms import (
    JPEG,
    JPEG_2000,
    RLE,
    colours,
    compressed,
    content,
    dataset,
    encapsulated,
    grey,
    lut,
    read,
    save,
    smooth,
)
from vgmedgen.data import dicom, images
from vgmedgen.data.records import Record


def shown(tmp_path: Path, data: Dataset) -> np.ndarray:
    """One plane of a grey image."""
    found = read(tmp_path, data)
    assert found.dtype == np.uint8
    assert found.shape == (23, 17, 3)
    assert (found == found[..., :1]).all()
    return found[..., 0]


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
