"""What an image is asked to show: anatomy and style, each from where it was asked for.

Two vectors steer an image: anatomy (where, what shape) and style (how it looks). The
text mapper gives both for any caption, so that they can be taken from two captions, or
moved towards a third.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.synthesis.asked import Ask

Vectors = tuple[Tensor, Tensor]  # anatomy (A,), style (S,)


class Conditions:
    """The vectors of captions and asks; each caption is read once.

    Captions are read one at a time: their vectors are then the same to the last bit
    whatever else is asked for.

    Args:
        encoder: reads captions.
        mapper: gives their vectors.
        device: where the vectors are wanted.
    """

    def __init__(
        self, encoder: TextEncoder, mapper: TextMapper, device: torch.device | str
    ) -> None:
        self._encoder = encoder
        self._mapper = mapper
        self._device = device
        self._read: dict[str, Vectors] = {}
        self._reading = threading.Lock()  # a fast tokenizer serves one thread at a time

    @torch.no_grad()
    def of_caption(self, caption: str) -> Vectors:
        """Anatomy (A,) and style (S,) of a caption.

        Raises:
            DataError: if it is empty.
        """
        with self._reading:
            if caption not in self._read:
                embedding = self._encoder.embed_alone(caption)
                anatomy, style = self._mapper(
                    embedding.to(self._device, self._mapper.dtype)
                )
                self._read[caption] = anatomy[0], style[0]
            return self._read[caption]

    def of(self, ask: Ask) -> Vectors:
        """Anatomy (A,) and style (S,) that an ask wants.

        Raises:
            DataError: if a caption is empty.
            ValueError: if the share is not within 0 and 1.
        """
        if not 0 <= ask.share <= 1:
            raise ValueError(
                f"a share of {ask.share} was asked for, not one from 0 to 1"
            )
        vectors = (
            self.of_caption(ask.anatomy or ask.prompt)[0],
            self.of_caption(ask.style or ask.prompt)[1],
        )
        if not ask.towards:
            return vectors
        return interpolate(vectors, self.of_caption(ask.towards), ask.share)


def interpolate(start: Vectors, end: Vectors, share: float) -> Vectors:
    """Both vectors, `share` of the way from one end to the other, in a straight line.

    The HFFM takes off each vector's length, so a straight line passes the very
    directions that an arc would. It has its ends exactly, keeps the lengths that the
    mapper was trained to, and needs no case of its own for ends that point the same way.
    """
    anatomy, style = (
        torch.lerp(one, other, share) for one, other in zip(start, end, strict=True)
    )
    return anatomy, style


def strip(ask: Ask, count: int) -> list[Ask]:
    """The way from an ask to its `towards` in `count` images, both ends among them.

    All have the ask's seed, so that only what they are asked to show differs. They are
    numbered on from the ask.

    Raises:
        ValueError: if there is nothing to move towards, or `count` is less than 2.
    """
    if not ask.towards:
        raise ValueError("a strip needs a caption to move towards")
    if count < 2:  # noqa: PLR2004  # its two ends
        raise ValueError(f"a strip of {count} was asked for; it needs its two ends")
    return [
        replace(ask, number=ask.number + step, share=step / (count - 1))
        for step in range(count)
    ]


def stacked(vectors: Sequence[Vectors]) -> Vectors:
    """Anatomy (B, A) and style (B, S) of B pairs of vectors."""
    anatomy, style = zip(*vectors, strict=True)
    return torch.stack(anatomy), torch.stack(style)
