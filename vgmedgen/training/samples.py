"""A site's samples, prepared once: pixels, latents and caption embeddings in a cache.

Latents and embeddings are functions of one sample and of frozen weights, to the last bit,
so they are computed once per base bundle and kept in the site's private folder.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vgmedgen.base import Bundle
from vgmedgen.data import images
from vgmedgen.data.attributes import measure, words
from vgmedgen.data.cache import Cache
from vgmedgen.data.captions import caption
from vgmedgen.data.pixels import READING
from vgmedgen.data.records import Dataset, Record
from vgmedgen.models.codec import Codec
from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.process.parallel import one_thread, side_by_side

READ_AT_ONCE = 32  # images; each is encoded by itself
MADE = "each-alone"  # how samples are made; one that was made otherwise is made again


@dataclass(frozen=True)
class Samples:
    """What training and evaluation see of a dataset.

    Shapes: N samples; latents (N, 4, h, w), embeddings (N, E).
    """

    records: tuple[Record, ...]
    captions: tuple[str, ...]
    latents: Tensor
    embeddings: Tensor
    cache: Cache
    keys: tuple[str, ...]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.keys)

    @property
    def units(self) -> int:
        """Number of distinct units."""
        return len({record.unit for record in self.records})

    def by_unit(self) -> tuple[tuple[int, ...], ...]:
        """Rows of every unit, units by name."""
        rows: defaultdict[str, list[int]] = defaultdict(list)
        for row, record in enumerate(self.records):
            rows[record.unit].append(row)
        return tuple(tuple(rows[unit]) for unit in sorted(rows))

    def pixels(self, rows: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [-1, 1] and masks (B, 1, H, W) of 0 and 1."""
        stored = [self.cache.get(self.keys[int(row)], "image", "mask") for row in rows]
        image = torch.stack([entry["image"] for entry in stored])
        mask = torch.stack([entry["mask"] for entry in stored])
        return images.as_input(image), mask.float()

    def only(self, keep: Sequence[bool]) -> "Samples":
        """The samples where `keep` is true, in order."""
        rows = [row for row, kept in enumerate(keep) if kept]
        return Samples(
            tuple(self.records[row] for row in rows),
            tuple(self.captions[row] for row in rows),
            self.latents[rows],
            self.embeddings[rows],
            self.cache,
            tuple(self.keys[row] for row in rows),
        )

    def of_units(self, units: frozenset[str], *, inside: bool = True) -> "Samples":
        """The samples whose unit is in `units`, or with `inside=False` is not."""
        return self.only([(r.unit in units) == inside for r in self.records])


def join(parts: Sequence[Samples]) -> Samples:
    """Several sources' samples as one; they must share a cache folder."""
    return Samples(
        tuple(record for part in parts for record in part.records),
        tuple(caption for part in parts for caption in part.captions),
        torch.cat([part.latents for part in parts]),
        torch.cat([part.embeddings for part in parts]),
        parts[0].cache,
        tuple(key for part in parts for key in part.keys),
    )


def prepare(dataset: Dataset, bundle: Bundle, folder: Path) -> Samples:
    """Read, caption, encode and embed every record that the cache does not hold yet.

    Args:
        dataset: the site's records.
        bundle: gives VAE, text encoder and image size.
        folder: of the cache; one subfolder per base digest.

    Raises:
        DataError: if an image or mask cannot be used; it is named.
    """
    cache = Cache(folder / bundle.digest[:16])
    keys = tuple(_key(record, dataset.modality) for record in dataset.records)
    missing = [row for row, key in enumerate(keys) if key not in cache]
    if missing:
        codec = Codec.load(bundle.part("vae"))
        encoder = TextEncoder.from_folder(
            bundle.part("text_encoder"), bundle.part("tokenizer")
        )
        for start in range(0, len(missing), READ_AT_ONCE):
            rows = missing[start : start + READ_AT_ONCE]
            _fill(cache, dataset, rows, keys, (bundle.image_px, codec, encoder))
    stored = [cache.get(key, "latent", "embedding") for key in keys]
    return Samples(
        dataset.records,
        tuple(cache.words(key)["caption"] for key in keys),
        torch.stack([entry["latent"] for entry in stored]),
        torch.stack([entry["embedding"] for entry in stored]),
        cache,
        keys,
    )


def _fill(
    cache: Cache,
    dataset: Dataset,
    rows: list[int],
    keys: tuple[str, ...],
    tools: tuple[int, Codec, TextEncoder],
) -> None:
    px, codec, encoder = tools
    records = [dataset.records[row] for row in rows]
    loaded = [images.load(record, px) for record in records]
    said = [{**words(measure(image, mask), dataset.modality)} for image, mask in loaded]
    sentences = [
        record.caption or caption(record, dataset.modality, spoken)
        for record, spoken in zip(records, said, strict=True)
    ]
    inputs = images.as_input(torch.stack([image for image, _ in loaded]))
    # on one thread each: what a sample is must not hang on how many there were
    alone = side_by_side(codec.encode, torch.split(inputs, 1), torch.device("cpu"))
    latents = torch.cat(list(alone))
    with one_thread():
        embeddings = encoder.embed(sentences)
    for place, row in enumerate(rows):
        image, mask = loaded[place]
        tensors = {
            "image": image,
            "mask": mask,
            "latent": latents[place],
            "embedding": embeddings[place],
        }
        cache.put(keys[row], tensors, {**said[place], "caption": sentences[place]})


def _key(record: Record, modality: str) -> str:
    """Digest of everything that a prepared sample depends on besides the base."""
    told = [
        READING,  # a picture that was read by other rules is read again
        MADE,
        torch.__version__,  # other kernels round in other ways
        torch.backends.cpu.get_cpu_capability(),
        modality,
        record.label,
        record.caption or "",
        *sorted(map(str, record.facts.items())),
    ]
    files = [images.file_digest(path) for path in (record.image, *record.masks)]
    return hashlib.sha256("\n".join([*files, *told]).encode()).hexdigest()
