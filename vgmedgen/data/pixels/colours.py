"""Colours of any kind as RGB of 8 bits (sRGB)."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from vgmedgen.errors import DataError

_SPACES = {"RGB": "RGB", "RGBX": "RGB", "CMYK": "CMYK"}  # a profile's, by mode
_USUAL = "sRGB"  # stands in the names of profiles that change nothing


def to_rgb(
    path: Path, pixels: Image.Image, source: Image.Image, *, profile: bool
) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of an image in any colour space.

    CMYK without a profile is taken as the plain complement of RGB, as viewers do that
    know no printer; Lab is that of D50 (TIFF 6.0, section 23).

    Args:
        path: of the file, for refusals.
        pixels: decoded.
        source: the image as opened, which holds an ICC profile or none.
        profile: whether the profile counts. For a mask it does not.

    Raises:
        DataError: if its profile is damaged or of another kind of colours.
    """
    if pixels.mode == "P":
        pixels = pixels.convert("RGB")
    content = source.info.get("icc_profile") if profile else None
    if content and pixels.mode in _SPACES:
        pixels = _profiled(path, pixels, content)
    return np.asarray(pixels.convert("RGB"))


def _profiled(path: Path, pixels: Image.Image, content: bytes) -> Image.Image:
    try:
        told = ImageCms.ImageCmsProfile(io.BytesIO(content))
        space = told.profile.xcolor_space.strip()
        name = told.profile.profile_description or ""
        if space == _SPACES[pixels.mode]:
            if _USUAL in name:
                return pixels
            plain = ImageCms.createProfile("sRGB")
            shown = ImageCms.profileToProfile(pixels, told, plain, outputMode="RGB")
            if shown is not None:
                return shown
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        space = "unreadable"
    raise DataError(
        f"{path} has a colour profile that does not fit its colours ({space} for "
        f"{pixels.mode}); save it anew as sRGB"
    )
