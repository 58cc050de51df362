"""What an image's file says of where it comes from, and reading that back.

Everything stands in one JSON, beside the few fields that other programs show. Nothing in
it tells of a patient, of a training file, or of how near the image came to one.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vgmedgen import __version__
from vgmedgen.data.pixels.opening import opened
from vgmedgen.data.synthetic import KEY, NOT_CLEARED
from vgmedgen.errors import DataError
from vgmedgen.synthesis.asked import Ask, Origin

SOFTWARE = f"vgmedgen {__version__}"
QUALITY = 95  # of JPEG
_DESCRIPTION, _SOFTWARE = 0x010E, 0x0131  # EXIF tags
# Source: IPTC digital source types, cv.iptc.org; the mark that viewers look for
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/'
    'trainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>'
)

Facts = dict[str, Any]


def facts(ask: Ask, origin: Origin) -> Facts:
    """Everything that is told of one image, in plain values."""
    return {
        "synthetic": True,
        "prompt": ask.prompt,
        "anatomy": ask.anatomy,
        "style": ask.style,
        "towards": ask.towards,
        "share": ask.share,
        "label": ask.label,
        "number": ask.number,
        "seed": ask.seed,
        "steps": origin.steps,
        "guidance": origin.guidance,
        "release": origin.release,
        "run": origin.run,
        "base": origin.base,
        "site": origin.site,
        "modality": origin.modality,
        "cleared": origin.cleared,
        "software": SOFTWARE,
    }


def as_png(pixels: NDArray[np.uint8], told: Mapping[str, Any]) -> bytes:
    """The bytes of a PNG of `pixels` (H, W, 3) that carries `told` as text chunks."""
    chunks = PngInfo()
    shown = {
        "Title": told["prompt"],
        "Description": told["prompt"],
        "Source": "synthetic",
        "Software": told["software"],
        "Release": told["release"],
        "Run": told["run"],
        "Seed": told["seed"],
        "Number": told["number"],
        "Steps": told["steps"],
        "Guidance": told["guidance"],
        "Cleared": "yes" if told["cleared"] else "no",
    }
    for name, value in shown.items():
        chunks.add_text(name, str(value))
    chunks.add_itxt("XML:com.adobe.xmp", _XMP)
    chunks.add_text(KEY, _json(told))
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", pnginfo=chunks)
    return content.getvalue()


def as_jpeg(pixels: NDArray[np.uint8], told: Mapping[str, Any]) -> bytes:
    """The bytes of a JPEG of `pixels` (H, W, 3); `told` is its comment."""
    exif = Image.Exif()
    cleared = "cleared" if told["cleared"] else NOT_CLEARED
    exif[_DESCRIPTION] = f"synthetic, {cleared}, release {told['release']}"
    exif[_SOFTWARE] = told["software"]
    content = io.BytesIO()
    Image.fromarray(pixels).save(
        content,
        "JPEG",
        quality=QUALITY,
        subsampling=0,  # colour is half of what a lesion is told by
        exif=exif,
        xmp=_XMP.encode(),
        comment=_json(told).encode(),
    )
    return content.getvalue()


def read_back(path: Path) -> Facts:
    """What `as_png` or `as_jpeg` was told.

    Raises:
        DataError: if the file is no image, or tells no such thing.
    """
    try:
        with opened(path) as image:
            image.load()
            text = image.info.get(KEY) or image.info.get("comment") or ""
        told = json.loads(text)
    except (DataError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} does not say where it comes from ({type(error).__name__}); it is "
            "no image of `vgmedgen synthesize`, or lost its metadata on the way"
        ) from error
    if not isinstance(told, dict) or told.get("synthetic") is not True:
        raise DataError(f"{path} does not say that it is synthetic")
    return told


def _json(told: Mapping[str, Any]) -> str:
    return json.dumps(dict(told), sort_keys=True, ensure_ascii=False)
