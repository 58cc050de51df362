"""Open a record's image and masks; the only place where image files are decoded.

`vgmedgen.data.pixels` says how, `vgmedgen.data.dicom` the same of DICOM.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Resize
from numpy.typing import NDArray
from torch import Tensor

from vgmedgen.data import dicom
from vgmedgen.data.pixels import depth, lesion, opening, raster
from vgmedgen.data.records import Record
from vgmedgen.errors import DataError
from vgmedgen.files import sha256


def load(record: Record, px: int) -> tuple[Tensor, Tensor]:
    """Read one record as a square; the whole image is squeezed, nothing is cropped.

    A lesion of less than half a pixel of that square keeps the pixels that hold most of
    it, since a mask without any pixel would say that there is none.

    Args:
        record: Names the files.
        px: Side of the square, pixels.

    Returns:
        Image (3, px, px) uint8 and mask (1, px, px) uint8 of 0 and 1.

    Raises:
        DataError: if a file cannot be decoded or leaves in doubt what it shows, or a
            mask is not of the image's size.
    """
    image = read(record.image)  # (H, W, 3)
    mask = _unite(record, image.shape[:2])  # (H, W)
    planes = [_resize(image[..., channel], px) for channel in range(image.shape[2])]
    covered = _resize(mask, px)
    whole = covered * 2 >= 1
    if not whole.any() and mask.any():
        whole = covered == covered.max()
    return torch.stack(planes).round().clamp(0, 255).byte(), whole[None].byte()


def read(path: Path) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) that one file shows, upright, as RGB of 8 bits.

    Raises:
        DataError: if it cannot be decoded, or leaves in doubt what it shows.
    """
    opening.check_file(path)
    if dicom.is_dicom(path):
        return dicom.read_pixels(path)
    found = raster.read(path, profile=True)
    if found.alpha is not None:
        raise DataError(
            f"{path} is transparent in places, and what is to be seen there is not said; "
            "save it without transparency, on black where nothing is"
        )
    shown = depth.eight_bit(path, found.values, found.bits)
    if shown.ndim == 2:  # noqa: PLR2004 - rows and columns
        return np.repeat(shown[..., None], 3, axis=2)
    return shown


def read_mask(path: Path) -> NDArray[np.bool_]:
    """The lesion (H, W) that one mask file shows, upright.

    Raises:
        DataError: as of `read`, and if the file holds several labels.
    """
    opening.check_file(path)
    if dicom.is_dicom(path):
        return dicom.read_mask(path)
    return lesion.of(path, raster.read(path, profile=False))


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
        mask = read_mask(path)
        if mask.shape != union.shape:
            raise DataError(
                f"mask {path} is {mask.shape[1]}x{mask.shape[0]} pixels, its image "
                f"{record.image.name} is {shape[1]}x{shape[0]} (both as they stand "
                "upright); the two sizes must be equal: export the mask again at the "
                "image's size"
            )
        union |= mask
    return union


def _resize(plane: NDArray[np.uint8] | NDArray[np.bool_], px: int) -> Tensor:
    """One plane (H, W) as a square of floats (px, px)."""
    # area averages whole pixels going down; going up it would only repeat them
    mode = "area" if min(plane.shape) >= px else "bilinear"
    planes = torch.from_numpy(np.ascontiguousarray(plane))[None].float()
    resized: Tensor = Resize((px, px), mode=mode)(planes)
    return resized.as_subclass(Tensor)[0]
