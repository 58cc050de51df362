"""Records of patients who do not exist, to plant in a copy of a training.

Each lies far from the data and in a direction of its own, which makes it the easiest
record there can be to find: what protects it protects anybody.
"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from vgmedgen.data.cache import Cache
from vgmedgen.data.records import Record
from vgmedgen.training.loop import generator_of
from vgmedgen.training.samples import Samples

FAR = 3.0  # standard deviations of real embeddings and latents
COARSE = 8  # px, side of the smallest patch of a fabricated image
PREFIX = "fabricated"


def fabricate(
    units: int, images: int, like: Samples, folder: Path, *, seed: int
) -> Samples:
    """Samples of `units` units of `images` images each.

    Args:
        units: how many.
        images: of each; they share a direction and differ a little.
        like: gives shapes and scales; no value of a single sample is taken over.
        folder: of the cache that holds the pixels; thrown away by the caller.
        seed: of all values.
    """
    draw = generator_of(seed, PREFIX)
    cache = Cache(folder)
    width, shape = like.embeddings.shape[1], like.latents.shape[1:]
    spread = like.embeddings.std(0, correction=0).mean().clamp_min(1e-3)
    centre = like.embeddings.mean(0)
    side = like.pixels([0])[0].shape[-1]
    records, keys, embeddings, latents = [], [], [], []
    for unit in range(units):
        said = torch.randn(width, generator=draw)
        shown = torch.randn(shape, generator=draw)
        for image in range(images):
            key = f"{PREFIX}-{unit:04d}-{image}"
            pixels, mask = _picture(side, draw)
            cache.put(key, {"image": pixels, "mask": mask}, {})
            records.append(
                Record(key, Path(key), (), f"{PREFIX}-{unit:04d}", "", {}, "")
            )
            keys.append(key)
            nudge = 0.1 * torch.randn(width, generator=draw)
            embeddings.append(centre + FAR * spread * (said + nudge))
            nudge = 0.1 * torch.randn(shape, generator=draw)
            latents.append(FAR * (shown + nudge))
    return Samples(
        tuple(records),
        tuple("" for _ in keys),
        torch.stack(latents),
        torch.stack(embeddings),
        cache,
        tuple(keys),
    )


def swap_last(samples: Samples, other: Samples) -> Samples:
    """The same units, the last one with the records of the last unit of `other`.

    Both must have as many images in it, and `other` its pixels in the same cache.
    """
    last = samples.records[-1].unit
    kept = samples.only([record.unit != last for record in samples.records])
    unit = other.records[-1].unit
    new = other.only([record.unit == unit for record in other.records])
    renamed = tuple(dataclasses.replace(record, unit=last) for record in new.records)
    return Samples(
        kept.records + renamed,
        kept.captions + new.captions,
        torch.cat([kept.latents, new.latents]),
        torch.cat([kept.embeddings, new.embeddings]),
        samples.cache,
        kept.keys + new.keys,
    )


def _picture(side: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """A patchwork (3, side, side) uint8 and a mask (1, side, side) of a rectangle."""
    count = -(-side // COARSE)
    patches = torch.randint(256, (3, count, count), generator=draw, dtype=torch.uint8)
    pixels = patches.repeat_interleave(COARSE, 1).repeat_interleave(COARSE, 2)
    mask = torch.zeros(1, side, side, dtype=torch.uint8)
    top, left = torch.randint(side // 2, (2,), generator=draw).tolist()
    mask[:, top : top + side // 3, left : left + side // 3] = 1
    return pixels[:, :side, :side].contiguous(), mask
