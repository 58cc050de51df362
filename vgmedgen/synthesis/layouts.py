"""The folder that a job fills: a training set that the project's adapters read back.

An image's name follows from its place among the asks alone. An image that the gate holds
back leaves a gap, and no other image is called differently for it.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgmedgen.data.adapters import busi, ham10000, kvasir_seg, table
from vgmedgen.errors import ConfigError
from vgmedgen.synthesis.asked import Ask, Drawn
from vgmedgen.synthesis.choices import CLASSES
from vgmedgen.synthesis.provenance import QUALITY, Facts, as_jpeg, as_png

PLAIN, HAM10000, BUSI, KVASIR = "plain", "ham10000", "busi", "kvasir-seg"
LAYOUTS = (PLAIN, HAM10000, BUSI, KVASIR)
MODALITIES = {HAM10000: "dermoscopy", BUSI: "ultrasound", KVASIR: "endoscopy"}
NORMAL, POLYP = "normal", "polyp"
_FORMULA = ("=", "+", "-", "@")  # begins with, as a spreadsheet sees it
CLAUSES = 3  # of a caption: subject, anatomy, style

_HAM_COLUMNS = ("lesion_id", "image_id", *ham10000.FACTS, *ham10000.OPTIONAL)
_INDEX_COLUMNS = (
    *("image", "prompt", "anatomy", "style", "towards", "share", "label", "seed"),
    *("release", "cleared"),
)
_PLAIN_COLUMNS = ("id", "image", "mask", "caption", "label", "unit")

Box = tuple[int, int, int, int]  # left, top, right, bottom; pixels


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One image that stands in the layout."""

    ask: Ask
    image: str  # path below the job's folder
    mask: str  # likewise; empty where there is none
    box: Box | None  # around its mask; None where that is empty


def needs_masks(layout: str) -> bool:
    """Whether a layout is no training set without masks."""
    return layout != PLAIN


def check(layout: str, asks: Sequence[Ask]) -> None:
    """Refuse asks that have no place in a layout.

    Raises:
        ConfigError: naming the first such prompt by its number from 1.
    """
    if layout not in LAYOUTS:
        raise ConfigError(
            f"there is no layout '{layout}'; there are: {', '.join(LAYOUTS)}"
        )
    for ask in asks:
        wrong = _misfit(layout, ask.label)
        if wrong:
            raise ConfigError(
                f"image {ask.number + 1} ('{ask.prompt[:40]}') {wrong}; give one in the "
                "column label or in a plan, or choose --layout plain"
            )


def _misfit(layout: str, label: str) -> str:
    allowed = {
        HAM10000: CLASSES["dermoscopy"],
        BUSI: busi.CLASSES,
        KVASIR: ("", POLYP),
    }.get(layout)
    if layout in {HAM10000, BUSI} and not label:
        return f"has no label, which the layout {layout} needs"
    if allowed is not None and label not in allowed:
        known = ", ".join(name for name in allowed if name)
        return f"has the label '{label}'; the layout {layout} knows {known}"
    return ""


def places(asks: Sequence[Ask]) -> list[int]:
    """Place of every ask among those of its label, from 1."""
    seen: Counter[str] = Counter()
    found = []
    for ask in asks:
        seen[ask.label] += 1
        found.append(seen[ask.label])
    return found


def files(
    layout: str, drawn: Drawn, place: int, told: Facts
) -> tuple[Kept, dict[str, bytes]]:
    """An image and its mask as the files of a layout.

    Args:
        layout: one of LAYOUTS.
        drawn: with a mask where the layout needs one.
        place: among the asks of its label, from 1.
        told: what the image's file says of its origin.

    Returns:
        What the layout's table will say of it, and bytes by path.
    """
    box, mask = None, drawn.mask
    if mask is not None:
        if layout == BUSI and drawn.ask.label == NORMAL:
            mask = np.zeros_like(mask)  # normal tissue has no mass
        box = _box(mask)
    one = kept(layout, drawn.ask, place, masks=mask is not None, box=box)
    encode = as_jpeg if one.image.endswith(".jpg") else as_png
    content = {one.image: encode(drawn.pixels, told)}
    if mask is not None:
        content[one.mask] = _mask(mask, jpeg=one.mask.endswith(".jpg"))
    return one, content


def kept(layout: str, ask: Ask, place: int, *, masks: bool, box: Box | None) -> Kept:
    """What a layout's table says of one image (arguments as of `files`)."""
    image, mask = _names(layout, ask, place)
    return Kept(ask=ask, image=image, mask=mask if masks else "", box=box)


def _names(layout: str, ask: Ask, place: int) -> tuple[str, str]:
    if layout == HAM10000:
        name = f"SYN_{ask.number:07d}"
        return (
            f"HAM10000_images_part_1/{name}.jpg",
            f"HAM10000_segmentations_lesion_tschandl/{name}_segmentation.png",
        )
    if layout == BUSI:
        name = f"Dataset_BUSI_with_GT/{ask.label}/{ask.label} ({place})"
        return f"{name}.png", f"{name}_mask.png"
    if layout == KVASIR:
        name = f"syn{ask.number:07d}.jpg"
        return f"Kvasir-SEG/images/{name}", f"Kvasir-SEG/masks/{name}"
    return f"images/{ask.number:05d}.png", f"masks/{ask.number:05d}.png"


def _mask(mask: NDArray[np.uint8], *, jpeg: bool) -> bytes:
    content = io.BytesIO()
    picture = Image.fromarray(mask * np.uint8(255))
    if jpeg:
        picture.convert("RGB").save(content, "JPEG", quality=QUALITY)
    else:
        picture.save(content, "PNG")
    return content.getvalue()


def _box(mask: NDArray[np.uint8]) -> Box | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1, int(rows[-1]) + 1


def tables(layout: str, kept: Sequence[Kept], px: int) -> dict[str, str]:
    """The text files that make the images a dataset, by path.

    Args:
        layout: one of LAYOUTS.
        kept: every image that stands in it, by number.
        px: side of the images.
    """
    if layout == HAM10000:
        return {"HAM10000_metadata.csv": as_csv(_HAM_COLUMNS, map(_ham_row, kept))}
    if layout == KVASIR:
        boxes = {one.image.rsplit("/")[-1][:-4]: _boxes(one, px) for one in kept}
        return {f"Kvasir-SEG/{kvasir_seg.BOXES}": json.dumps(boxes)}
    if layout == PLAIN:
        return {table.MANIFEST: as_csv(_PLAIN_COLUMNS, map(_plain_row, kept))}
    return {}  # BUSI says everything by folder and name


def _ham_row(one: Kept) -> list[str]:
    name = one.image.rsplit("/")[-1].removesuffix(".jpg")
    label = one.ask.label
    return [name, name, label, "synthetic", "", "unknown", "unknown", "vgmedgen"]


def _plain_row(one: Kept) -> list[str]:
    name = f"{one.ask.number:05d}"
    return [name, one.image, one.mask, shown(one.ask), one.ask.label, name]


def _boxes(one: Kept, px: int) -> dict[str, object]:
    names = ("xmin", "ymin", "xmax", "ymax")
    found = [] if one.box is None else [dict(zip(names, one.box, strict=True))]
    boxes = [{"label": POLYP, **box} for box in found]
    return {"height": px, "width": px, "bbox": boxes}


def shown(ask: Ask) -> str:
    """The caption that a model should learn an image by.

    Where anatomy or style came from another caption, its clause takes the place of the
    prompt's own, as far as both are made of the three clauses of this project.
    """
    parts = ask.prompt.split("; ")
    for place, other in ((1, ask.anatomy), (2, ask.style)):
        clauses = other.split("; ")
        if len(parts) == CLAUSES and len(clauses) == CLAUSES:
            parts[place] = clauses[place]
    return "; ".join(parts)


def index(kept: Iterable[Kept], release: str, *, cleared: bool) -> str:
    """The table that people look at, of any layout.

    A text that a spreadsheet would take for a formula has a quote before it. The tables
    of the layouts hold each caption as it is, for a model learns by it: they are for
    programs, and no spreadsheet should open them.
    """
    rows = []
    for one in kept:
        ask = one.ask
        captions = (ask.prompt, ask.anatomy, ask.style, ask.towards, ask.share)
        told = (ask.label, ask.seed, release, "yes" if cleared else "no")
        rows.append([_no_formula(cell) for cell in (one.image, *captions, *told)])
    return as_csv(_INDEX_COLUMNS, rows)


def _no_formula(cell: object) -> object:
    begins = isinstance(cell, str) and cell.startswith(_FORMULA)
    return f"'{cell}" if begins else cell


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A csv with a header line, as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
