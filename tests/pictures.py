"""Made pictures as files of every kind, and what they show."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vgmedgen.data import images
from vgmedgen.data.records import Record

WIDE, HIGH = 96, 72


def scene(width: int = WIDE, height: int = HIGH) -> tuple[np.ndarray, np.ndarray]:
    """Colours (H, W, 3) of a dark ellipse up on the left of pale skin, and its mask."""
    down, right = np.mgrid[0:height, 0:width]
    skin = np.stack(
        [200 - 40 * right / width, 150 - 30 * down / height, 130 + 0 * right], -1
    )
    across, along = (right - width * 0.3) / width, (down - height * 0.3) / height
    lesion = (across / 0.15) ** 2 + (along / 0.2) ** 2 <= 1
    skin[lesion] = (90, 50, 40)
    return skin.round().astype(np.uint8), lesion


def grey(width: int = WIDE, height: int = HIGH) -> np.ndarray:
    """The same without colour, 90 to 200."""
    return scene(width, height)[0][..., 0]


def record(image: Path, *masks: Path) -> Record:
    """A record of these files."""
    return Record("a", image, masks, "a", "", {})


def save(path: Path, values: np.ndarray | Image.Image, **options: Any) -> Path:
    """Write pixels as a file of the kind that its name says."""
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(path, **options)
    return path


def shown(path: Path) -> np.ndarray:
    """One plane of a file that must be grey."""
    found = images.read(path)
    assert found.dtype == np.uint8
    assert (found == found[..., :1]).all()
    return found[..., 0]


def tiff(
    path: Path, values: np.ndarray, *, kind: int = 1, sample: int = 1, more: bytes = b""
) -> Path:
    """A TIFF of one strip without compression, written here and by no library.

    Args:
        path: of the file.
        values: (H, W) or (H, W, C), in this machine's byte order.
        kind: photometric interpretation; 0 has white as 0.
        sample: format; 1 unsigned, 2 signed, 3 broken numbers.
        more: further entries of 12 bytes, of tags above 339.
    """
    raw = values.tobytes()
    channels = values.shape[2] if values.ndim > 2 else 1
    bits = 8 * values.dtype.itemsize
    after = 8 + len(raw)
    counts = struct.pack(f"<{channels}H", *[bits] * channels)
    where = after if channels > 2 else int.from_bytes(counts, "little")
    entries = [
        (256, 3, 1, values.shape[1]),
        (257, 3, 1, values.shape[0]),
        (258, 3, channels, where),
        (259, 3, 1, 1),
        (262, 3, 1, kind),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 3, 1, values.shape[0]),
        (279, 4, 1, len(raw)),
        (339, 3, 1, sample),
    ]
    start = after + len(counts) + len(counts) % 2
    table = struct.pack("<H", len(entries) + len(more) // 12)
    table += b"".join(struct.pack("<HHLL", *entry) for entry in entries) + more
    head = b"II*\0" + struct.pack("<L", start)
    body = head + raw + counts.ljust(start - after, b"\0") + table + bytes(4)
    path.write_bytes(body)
    return path
