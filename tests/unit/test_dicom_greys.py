"""DICOM greys of every depth show the same picture, or are refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.dicoms import dataset, lut, read, refused, save
from tests.pictures import grey as picture
from tests.pictures import scene
from vgmedgen.data import dicom

GREY = picture()
WORDS = GREY.astype(np.uint16) << 4  # 12 bits
LESION = scene()[1]


def agrees(tmp_path: Path, data: Dataset, within: int = 1) -> None:
    found = read(tmp_path, data)
    assert np.abs(found.astype(int) - GREY[..., None]).max() <= within


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("largest", [False, True])
def test_words_that_declare_all_their_bits_show_what_they_use(
    tmp_path: Path, bits: int, largest: bool
) -> None:
    values = GREY.astype(np.uint16) << (bits - 8)
    data = dataset(values, "MONOCHROME2")
    if largest:
        data.SmallestImagePixelValue = 0
        data.LargestImagePixelValue = (1 << bits) - 1
    agrees(tmp_path, data)


def test_the_largest_value_that_is_told_keeps_a_dark_image_dark(tmp_path: Path) -> None:
    data = dataset(WORDS // 4, "MONOCHROME2", LargestImagePixelValue=4095)
    found = read(tmp_path, data)[..., 0]
    assert np.abs(found.astype(int) - GREY // 4).max() <= 1


def test_a_largest_value_that_is_not_so_counts_for_nothing(tmp_path: Path) -> None:
    agrees(tmp_path, dataset(WORDS, "MONOCHROME2", LargestImagePixelValue=100))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_a_falling_rescale_turns_black_and_white(tmp_path: Path, kind: str) -> None:
    values = WORDS if kind == "MONOCHROME1" else 4095 - WORDS
    data = dataset(values, kind, BitsStored=12, RescaleSlope=-1, RescaleIntercept=4095)
    agrees(tmp_path, data)


def test_colours_of_sixteen_bits_show_what_they_use(tmp_path: Path) -> None:
    colours, _ = scene()
    for shift in (0, 2, 4, 8):
        data = dataset(colours.astype(np.uint16) << shift, "RGB")
        assert np.array_equal(read(tmp_path, data), colours)
    data = dataset(colours.astype(np.uint16) << 4, "RGB", BitsStored=12)
    assert np.array_equal(read(tmp_path, data), colours)


@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_a_palette_of_words_shows_what_its_entries_use(
    tmp_path: Path, top: int
) -> None:
    data = dataset(GREY, "PALETTE COLOR")
    entries = np.rint(np.arange(256) * (top / 255)).astype(np.uint16)
    for name in ("Red", "Green", "Blue"):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(data, f"{name}PaletteColorLookupTableData", entries.tobytes())
    agrees(tmp_path, data)


def packed(entries: np.ndarray, first: int = 0, bits: int = 8) -> Sequence:
    table = lut(entries, first, bits)
    raw = entries.astype(np.uint8).tobytes()
    table[0].add_new(0x00283006, "OW", raw + b"\0" * (len(raw) % 2))
    return table


TABLES = {
    "8 bits in words": lambda n: lut(np.arange(n) * 256 // n, 0, 8),
    "8 bits packed": lambda n: packed(np.arange(n) * 256 // n),
    "12 bits": lambda n: lut(np.arange(n) * 4096 // n, 0, 12),
    "16 bits": lambda n: lut(np.arange(n) * 65536 // n, 0, 16),
    "16 bits told, 12 used": lambda n: lut(np.arange(n) * 4096 // n, 0, 16),
    "8 bits told, 16 used": lambda n: lut(np.arange(n) * 65536 // n, 0, 8),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"])
def test_tables_of_any_depth_show_the_same(
    tmp_path: Path, name: str, keyword: str, syntax: str
) -> None:
    more = {keyword: TABLES[name](4096), "BitsStored": 12}
    agrees(tmp_path, dataset(WORDS, "MONOCHROME2", syntax=syntax, **more))


def test_a_packed_table_of_an_odd_length_is_read(tmp_path: Path) -> None:
    table = packed(np.minimum(np.arange(201), 255))
    agrees(tmp_path, dataset(GREY, "MONOCHROME2", VOILUTSequence=table))


def test_a_table_of_all_16_bits_is_read(tmp_path: Path) -> None:
    table = lut(np.arange(65536) >> 8, 0, 8)
    table[0].LUTDescriptor = [0, 0, 8]  # 0 stands for 65536
    data = dataset(GREY.astype(np.uint16) << 8, "MONOCHROME2", VOILUTSequence=table)
    agrees(tmp_path, data)


def test_a_table_begins_where_it_says_and_ends_hold_beyond(tmp_path: Path) -> None:
    table = lut(np.arange(111) + 90, 90, 8)
    agrees(tmp_path, dataset(GREY, "MONOCHROME2", VOILUTSequence=table))


@pytest.mark.parametrize("vr", ["SS", "US"])
def test_a_table_of_rescaled_values_may_begin_below_zero(
    tmp_path: Path, vr: str
) -> None:
    table = lut(np.arange(4096), 0, 12)
    first = -1024 if vr == "SS" else 65536 - 1024
    table[0].add_new(0x00283002, vr, [4096, first, 12])
    data = dataset(
        WORDS,
        "MONOCHROME2",
        BitsStored=12,
        RescaleIntercept=-1024,
        VOILUTSequence=table,
    )
    agrees(tmp_path, data)


def test_a_table_of_words_is_read_from_big_endian_files(tmp_path: Path) -> None:
    table = lut(np.arange(4096), 0, 12)
    table[0].add_new(0x00283006, "OW", np.arange(4096, dtype=">u2").tobytes())
    data = dataset(
        WORDS,
        "MONOCHROME2",
        BitsStored=12,
        syntax="1.2.840.10008.1.2.2",
        VOILUTSequence=table,
    )
    data.PixelData = WORDS.astype(">u2").tobytes()
    agrees(tmp_path, data)


def short() -> Sequence:
    table = lut(np.arange(4096), 0, 12)
    table[0].add_new(0x00283006, "OW", bytes(1000))
    return table


def plain(values: np.ndarray, **more: Any) -> Dataset:
    return dataset(values, "MONOCHROME2", **more)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (plain(WORDS.astype(np.int16) - 1024), "signed values"),
        (plain(WORDS.astype(np.int16) - 1024, BitsStored=13), "signed values"),
        (plain(WORDS.astype(np.int16) - 1024, RescaleIntercept=9), "signed values"),
        (plain(GREY.astype(np.uint16), BitsStored=12), "look flat"),
        (plain(GREY.astype(np.uint16) + 32768), "look flat"),
        (plain(WORDS, WindowCenter=32768, WindowWidth=65536), "look flat"),
        (plain(WORDS, WindowCenter=9999, WindowWidth=100), "look flat"),
        (plain(WORDS, BitsStored=12, VOILUTSequence=lut(np.arange(9), 0)), "flat"),
        (plain(WORDS, BitsStored=12, VOILUTSequence=short()), "lookup table of 1000"),
        (plain(GREY, PresentationLUTShape="INVERSE"), "PresentationLUTShape"),
        (dataset(GREY, "MONOCHROME1", PresentationLUTShape="IDENTITY"), "Presentation"),
        (dataset((scene()[0] // 32).astype(np.uint16), "RGB"), "look flat"),
    ],
    ids=lambda value: None if isinstance(value, Dataset) else value,
)
def test_what_leaves_open_which_greys_are_meant_is_refused(
    tmp_path: Path, data: Dataset, word: str
) -> None:
    assert word in refused(save(tmp_path / "a.dcm", data))


def test_signed_values_that_fill_a_usual_depth_are_read(tmp_path: Path) -> None:
    wide = (GREY.astype(int) - 90) * 255 // 110
    values = (wide.astype(np.int16) << 4) - 2048
    found = read(tmp_path, dataset(values, "MONOCHROME2"))[..., 0]
    assert np.abs(found.astype(int) - wide).max() <= 1


def test_a_presentation_that_fits_changes_nothing(tmp_path: Path) -> None:
    agrees(tmp_path, dataset(GREY, "MONOCHROME2", PresentationLUTShape="IDENTITY"))
    agrees(tmp_path, dataset(255 - GREY, "MONOCHROME1", PresentationLUTShape="INVERSE"))


@pytest.mark.parametrize(
    "values",
    [
        LESION.astype(np.uint8) * 2,
        LESION.astype(np.uint8) * 100,
        LESION.astype(np.uint16),
        LESION.astype(np.uint16) * 255,
        LESION.astype(np.uint16) * 4095,
        LESION.astype(np.int16) * 3,
        np.stack([LESION * 200, LESION * 0, LESION * 0], -1).astype(np.uint8),
    ],
)
def test_masks_of_any_label_read_the_same(tmp_path: Path, values: np.ndarray) -> None:
    kind = "RGB" if values.ndim == 3 else "MONOCHROME2"
    for more in ({}, {"WindowCenter": 128, "WindowWidth": 256}):
        path = save(tmp_path / "m.dcm", dataset(values, kind, **more))
        assert np.array_equal(dicom.read_mask(path), LESION)


def test_an_inverted_mask_is_lesion_where_it_is_bright(tmp_path: Path) -> None:
    for white in (1, 2, 255):
        values = (1 - LESION.astype(np.uint8)) * white
        path = save(tmp_path / "m.dcm", dataset(values, "MONOCHROME1"))
        assert np.array_equal(dicom.read_mask(path), LESION)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (plain((LESION * 1 + 2 * (GREY > 180)).astype(np.uint8)), "3 different values"),
        (plain((LESION + 1).astype(np.uint8)), "2 different values"),
        (plain(LESION.astype(np.int16) - 1), "negative"),
        (plain(GREY), "different values"),
        (dataset(np.zeros((9, 9), np.uint8), "MONOCHROME1"), "the same everywhere"),
        (dataset(scene()[0], "RGB"), "colours"),
        (
            plain(LESION.astype(np.uint8), LossyImageCompression="01"),
            "2 different values",
        ),
    ],
)
def test_masks_in_doubt_are_refused(tmp_path: Path, data: Dataset, word: str) -> None:
    assert word in refused(save(tmp_path / "m.dcm", data), dicom.read_mask)


@pytest.mark.parametrize("colours", [(0, 255), (0, 0), (0, 1)])
def test_masks_of_a_palette_read_the_same_whatever_its_colours(
    tmp_path: Path, colours: tuple[int, int]
) -> None:
    data = dataset(LESION.astype(np.uint8), "PALETTE COLOR")
    entries = np.repeat(colours, [1, 255]).astype(np.uint16)
    for name in ("Red", "Green", "Blue"):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(data, f"{name}PaletteColorLookupTableData", entries.tobytes())
    path = save(tmp_path / "m.dcm", data)
    assert np.array_equal(dicom.read_mask(path), LESION)
