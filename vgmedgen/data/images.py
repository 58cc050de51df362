"""Open a record's image and masks; the only place where image files are decoded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Resize
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vgmedgen.data import dicom
from vgmedgen.data.records import Record
from vgmedgen.errors import DataError
from vgmedgen.files import sha256

HALF = 128  # a mask value from here up is lesion; JPEG noise stays far from it


def load(record: Record, px: int) -> tuple[Tensor, Tensor]:
    """Read one record as a square; the whole image is squeezed, nothing is cropped.

    Args:
        record: Names the files.
        px: Side of the square, pixels.

    Returns:
        Image (3, px, px) uint8 and mask (1, px, px) uint8 of 0 and 1.

    Raises:
        DataError: if a file cannot be decoded, or a mask is not of the image's size.
    """
    image = _colours(record.image)  # (H, W, 3)
    mask = _unite(record, image.shape[:2])  # (H, W)
    small = _resize(torch.from_numpy(image).movedim(-1, 0).float(), px)
    covered = _resize(torch.from_numpy(mask)[None].float(), px)
    return small.round().clamp(0, 255).byte(), (covered * 2 >= 1).byte()


def as_input(image: Tensor) -> Tensor:
    """Pixels 0..255 as the networks take them: float in [-1, 1], any shape."""
    return image.float() / 127.5 - 1


def as_uint8(image: Tensor) -> Tensor:
    """Inverse of `as_input`; values outside [-1, 1] are clipped."""
    return ((image.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal.

    Raises:
        DataError: if the file cannot be read.
    """
    try:
        return sha256(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}; restore the file"
        ) from error


def _unite(record: Record, shape: Sequence[int]) -> NDArray[np.bool_]:
    union = np.zeros(tuple(shape), dtype=np.bool_)
    for path in record.masks:
        mask = _foreground(path)
        if mask.shape != union.shape:
            raise DataError(
                f"mask {path} is {mask.shape[1]}x{mask.shape[0]} pixels, its image "
                f"{record.image.name} is {shape[1]}x{shape[0]}; the two sizes must be "
                "equal: export the mask again at the image's size"
            )
        union |= mask
    return union


def _resize(planes: Tensor, px: int) -> Tensor:
    # area averages whole pixels going down; going up it would only repeat them
    mode = "area" if min(planes.shape[-2:]) >= px else "bilinear"
    resized: Tensor = Resize((px, px), mode=mode)(planes)
    return resized.as_subclass(Tensor)


def _colours(path: Path) -> NDArray[np.uint8]:
    if dicom.is_dicom(path):
        return dicom.read_pixels(path)
    return np.array(_opened(path, "RGB"), dtype=np.uint8)


def _foreground(path: Path) -> NDArray[np.bool_]:
    if dicom.is_dicom(path):
        return dicom.read_mask(path)
    grey = np.asarray(_opened(path, "L"))
    # some tools write the labels 0 and 1 themselves instead of black and white
    return grey > 0 if grey.max(initial=0) <= 1 else grey >= HALF


def _eight_bit(opened: Image.Image) -> Image.Image:
    if not opened.mode.startswith("I"):
        return opened
    return Image.fromarray((np.asarray(opened).clip(0, 65535) >> 8).astype(np.uint8))


def _opened(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as opened:
            return _eight_bit(opened).convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read as an image ({error}); the file is damaged or "
            "incomplete: restore or remove it"
        ) from error
