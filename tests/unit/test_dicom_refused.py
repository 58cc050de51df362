"""DICOM that is no usual single image: one clear line, whatever is damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.dicoms import (
    HTJ2K,
    JPEG,
    JPEG_2000,
    MPEG,
    RLE,
    colours,
    compressed,
    content,
    dataset,
    encapsulated,
    grey,
    lut,
    read,
    refused,
    save,
    smooth,
)
from vgmedgen.data import dicom
from vgmedgen.errors import DataError


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
    refused(path, dicom.read_mask)
    told = refused(path)
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
        for reader in (dicom.read_pixels, dicom.read_mask, dicom.identity):
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
