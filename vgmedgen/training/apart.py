"""Whether what is prepared of a sample is a function of that sample alone, to the bit.

A claim of privacy holds one unit's gradient to a clip norm. It says nothing of what one
unit does to the record of another, so nothing may: a batch that pads, normalises or only
rounds by its other rows would be such a way. Looked at with samples that are made up
here, so that what a refusal tells is the machine's and the base's and nobody's patient;
the site's own are compared besides with what their record gives when made again.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vgmedgen.base import Bundle
from vgmedgen.errors import TrainingError
from vgmedgen.models.codec import Codec
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.process.parallel import one_thread
from vgmedgen.training.align import Latents, look, map_text
from vgmedgen.training.samples import Samples

SHOWN = 3  # samples that are made again: one or two could hide a wrong layout
_CAPTIONS = ("skin", "a small round dark lesion with an even border, " * 8, "red spot")


def check_prepared(bundle: Bundle, samples: Samples) -> None:
    """Refuse samples that are not each a function of its own image and caption.

    Args:
        bundle: that they were prepared with.
        samples: of the site; the first, the middle and the last are made again.

    Raises:
        TrainingError: naming what differs.
    """
    codec = Codec.load(bundle.part("vae"))
    encoder = TextEncoder.from_folder(
        bundle.part("text_encoder"), bundle.part("tokenizer")
    )
    check_tools(codec, encoder, bundle.image_px)
    rows = sorted({0, len(samples) // 2, len(samples) - 1})
    with one_thread():  # as they were prepared
        for row in rows:
            latent = codec.encode(samples.pixels([row])[0])
            _same("latents", latent, samples.latents[row : row + 1])
            embedding = encoder.embed_alone(samples.captions[row])
            _same("embeddings", embedding, samples.embeddings[row : row + 1])


def check_tools(codec: Codec, encoder: TextEncoder, px: int) -> None:
    """Compare latents and embeddings of made-up samples, made alone and together.

    Raises:
        TrainingError: naming what differs.
    """
    images = _images(px)
    _apart("latents", codec.encode, images)
    together = encoder.embed(_CAPTIONS)
    alone = torch.cat([encoder.embed([caption]) for caption in _CAPTIONS])
    _same("embeddings", together, alone)


def check_models(prior: VisualPrior, mapper: TextMapper, px: int) -> None:
    """The same for what the prior sees and where the mapper puts captions.

    Raises:
        TrainingError: naming what differs.
    """

    def seen(images: Tensor) -> Tensor:
        return _both(look(prior, torch.split(images, 1)))

    def mapped(embeddings: Tensor) -> Tensor:
        return _both(map_text(mapper, embeddings))

    rows = torch.randn(SHOWN, mapper.config.text_width, generator=_draw())
    _apart("vectors of the visual prior", seen, _images(px))
    _apart("vectors of the text mapper", mapped, rows)


def _both(found: Latents) -> Tensor:
    return torch.cat([found.anatomy, found.style], dim=1)


def _apart(what: str, make: Callable[[Tensor], Tensor], given: Tensor) -> None:
    _same(what, make(given), torch.cat([make(one) for one in torch.split(given, 1)]))


def _same(what: str, one: Tensor, other: Tensor) -> None:
    if not torch.equal(one, other):
        raise TrainingError(
            f"the self-test failed: {what} change with the samples that they are made "
            "beside; under DP a record may depend on its own unit only: remove the site's "
            "cache folder, or install the client again; nothing was trained"
        )


def _images(px: int) -> Tensor:
    return torch.rand(SHOWN, 3, px, px, generator=_draw()) * 2 - 1


def _draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)
