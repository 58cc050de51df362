"""Write phantoms to disk in the published layouts of HAM10000, BUSI and Kvasir-SEG.

Beside each, `attributes.json` maps every image to the truth that it was drawn from.
Image number i depends on the seed and i alone, so a larger set begins with the smaller.
"""

import csv
import io
import json
import string
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgmedgen.data import phantom_skin
from vgmedgen.data.adapters import ham10000
from vgmedgen.data.phantom_draw import draw, photograph, shares
from vgmedgen.data.phantom_noise import chance
from vgmedgen.data.phantom_tint import NEUTRAL, Tint
from vgmedgen.data.phantom_truth import Phantom
from vgmedgen.errors import StateError
from vgmedgen.files import write_text

ATTRIBUTES = "attributes.json"

_WIDE = (4, 3)  # HAM10000 photographs; the squares are drawn to be stretched to this
_SECOND_IMAGE = 0.25  # share of lesions that HAM10000 shows twice
_QUALITY = 94  # of JPEG; the other formats ignore it
_SPLIT_EVERY, _SPLIT_FIRST = 12, 2  # benign images whose mask lies in two files
_ID_LETTERS = np.array(list(string.ascii_lowercase + string.digits))
_HAM_COLUMNS = ("lesion_id", "image_id", *ham10000.FACTS, *ham10000.OPTIONAL)

Truths = dict[str, dict[str, object]]


def write_ham10000(
    folder: Path,
    n: int,
    seed: int,
    px: int,
    tint: Tint = NEUTRAL,
    *,
    dataset: str = "phantom_device",
) -> None:
    """Write `n` dermoscopy phantoms as HAM10000 lies on disk.

    About a quarter of the lesions have two images: the same lesion photographed again.

    Args:
        folder: Receives two image folders, masks, HAM10000_metadata.csv and
            attributes.json; made where absent.
        n: Number of images.
        seed: Of the whole set.
        px: Height of an image; its width is 4/3 of that.
        tint: The device.
        dataset: Value of the metadata's `dataset` column.

    Raises:
        StateError: if the folder cannot be written.
    """
    rows: list[dict[str, str]] = []
    truths: Truths = {}
    parts = _folders(folder, "HAM10000_images_part_1", "HAM10000_images_part_2")
    (masks,) = _folders(folder, "HAM10000_segmentations_lesion_tschandl")
    wide = (px * _WIDE[0] // _WIDE[1], px)
    number = 0
    while len(rows) < n:
        rng = np.random.default_rng([seed, number])
        label = _label("dermoscopy", number, rng)
        lesion = phantom_skin.plan(rng, label)
        facts = phantom_skin.facts(rng, label)
        number += 1
        shots = [lesion]
        if chance(rng, _SECOND_IMAGE):
            shots.append(phantom_skin.again(lesion, rng))
        for shot in shots[: n - len(rows)]:
            phantom = photograph("dermoscopy", shot, facts, rng=rng, px=px, tint=tint)
            image_id = f"ISIC_{len(rows) + 1:07d}"
            part = parts[0 if len(rows) < (n + 1) // 2 else 1]
            _save(_image(phantom.image, wide), part / f"{image_id}.jpg")
            _save(_mask(phantom.mask, wide), masks / f"{image_id}_segmentation.png")
            truths[image_id] = _truth(phantom)
            keys = {"lesion_id": f"HAM_{number:07d}", "image_id": image_id}
            rows.append({**keys, "dx": label, **facts, "dataset": dataset})
    stream = io.StringIO()
    table = csv.DictWriter(stream, _HAM_COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(folder / "HAM10000_metadata.csv", stream.getvalue())
    _save_truths(folder, truths)


def write_busi(folder: Path, n: int, seed: int, px: int, tint: Tint = NEUTRAL) -> None:
    """Write `n` ultrasound phantoms as BUSI lies on disk.

    Some masks are spread over two files, `_mask.png` and `_mask_1.png`: their union is
    the mass. Normal images have an empty mask.

    Args:
        folder: Receives Dataset_BUSI_with_GT and attributes.json.
        n: Number of images.
        seed: Of the whole set.
        px: Height of an image; its width varies.
        tint: The device.

    Raises:
        StateError: if the folder cannot be written.
    """
    home = folder / "Dataset_BUSI_with_GT"
    counts = dict.fromkeys(shares("ultrasound"), 0)
    for label in counts:
        _folders(home, label)
    truths: Truths = {}
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        label = _label("ultrasound", number, rng)
        phantom = draw("ultrasound", rng, px, tint, label=label)
        wide = (round(px * rng.uniform(0.95, 1.5)), px)
        counts[label] += 1
        name = f"{label} ({counts[label]})"
        _save(_image(phantom.image, wide), home / label / f"{name}.png")
        masks = [phantom.mask]
        if label == "benign" and counts[label] % _SPLIT_EVERY == _SPLIT_FIRST:
            masks = _halves(phantom.mask)
        for index, mask in enumerate(masks):
            suffix = f"_mask_{index}" if index else "_mask"
            picture = _mask(mask, wide).convert("1")
            _save(picture, home / label / f"{name}{suffix}.png")
        truths[name] = _truth(phantom)
    _save_truths(folder, truths)


def write_kvasir_seg(
    folder: Path, n: int, seed: int, px: int, tint: Tint = NEUTRAL
) -> None:
    """Write `n` endoscopy phantoms as Kvasir-SEG lies on disk: masks are JPEG too.

    Args:
        folder: Receives Kvasir-SEG and attributes.json.
        n: Number of images.
        seed: Of the whole set.
        px: Height of an image; its width varies.
        tint: The device.

    Raises:
        StateError: if the folder cannot be written.
    """
    home = folder / "Kvasir-SEG"
    images, masks = _folders(home, "images", "masks")
    boxes: dict[str, dict[str, object]] = {}
    truths: Truths = {}
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        name = "cju" + "".join(rng.choice(_ID_LETTERS, 22))
        phantom = draw("endoscopy", rng, px, tint)
        wide = (round(px * rng.uniform(1, 1.3)), px)
        mask = _mask(phantom.mask, wide)
        _save(_image(phantom.image, wide), images / f"{name}.jpg")
        _save(mask.convert("RGB"), masks / f"{name}.jpg")
        box = dict(
            zip(
                ("xmin", "ymin", "xmax", "ymax"),
                mask.getbbox() or (0,) * 4,
                strict=True,
            )
        )
        boxes[name] = {
            "height": wide[1],
            "width": wide[0],
            "bbox": [{"label": "polyp", **box}],
        }
        truths[name] = _truth(phantom)
    write_text(home / "kavsir_bboxes.json", json.dumps(boxes))
    _save_truths(folder, truths)


def _label(modality: str, number: int, rng: np.random.Generator) -> str:
    """Class of image `number`: each once at first, then as often as `shares` says."""
    frequencies = shares(modality)
    names = list(frequencies)
    chosen = str(rng.choice(names, p=list(frequencies.values())))
    return names[number] if number < len(names) else chosen


def _truth(phantom: Phantom) -> dict[str, object]:
    return {"label": phantom.label, **phantom.drawn.to_dict()}


def _halves(mask: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Two masks whose union is `mask`, cut at the middle of its columns."""
    columns = np.flatnonzero(mask.any(axis=0))
    cut = int(columns[columns.size // 2])
    left, right = mask.copy(), mask.copy()
    left[:, cut:] = 0
    right[:, :cut] = 0
    return [left, right]


def _image(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _mask(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(pixels * 255).resize(size, Image.Resampling.NEAREST)


def _folders(home: Path, *names: str) -> list[Path]:
    made = [home / name for name in names]
    for path in made:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"cannot make {path}: {error.strerror or error}; choose a folder that "
                "can be written"
            ) from error
    return made


def _save(picture: Image.Image, path: Path) -> None:
    try:
        picture.save(path, quality=_QUALITY)
    except OSError as error:
        raise StateError(
            f"cannot write {path}: {error.strerror or error}; free some space or "
            "choose another folder, then start again"
        ) from error


def _save_truths(folder: Path, truths: Truths) -> None:
    write_text(folder / ATTRIBUTES, json.dumps(truths, indent=1))
