"""Draw what is asked for, each image a function of its ask alone, to the byte.

How many rows are computed together, and by how many threads, decides how sums are
rounded, and a pixel can fall the other way. So images are always computed in groups of
`LANES` rows by one thread per group, and image k is always row k % LANES of its group:
what the other rows hold, be it other images or padding, then changes nothing. Neither
which images are asked for, nor their order, nor an interruption, nor the number of
processors can change a byte. What can is another kind of processor, a GPU in its place,
or another version of the libraries.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

import torch
from torch import Tensor

from vgmedgen.errors import ReleaseError
from vgmedgen.models.generator import Generator
from vgmedgen.models.sampler import sample
from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.process.parallel import side_by_side
from vgmedgen.synthesis.asked import Ask, Drawn
from vgmedgen.synthesis.control import Conditions, stacked
from vgmedgen.synthesis.greys import in_grey
from vgmedgen.synthesis.pipeline import VGMedGenPipeline

LANES = 8  # images computed together, always


class Drawer:
    """Draws with one pipeline and one set of options.

    Args:
        pipeline: of an installed release, on the device that is to draw.
        steps: of the solver.
        guidance: strength of classifier-free guidance; 1 is none.
        masks: also draw what the visual prior sees as the lesion in each image.
        grey: whether an ask's image is to have no colour.

    Raises:
        ReleaseError: if masks are wanted and the pipeline has no visual prior.
    """

    def __init__(
        self,
        pipeline: VGMedGenPipeline,
        *,
        steps: int,
        guidance: float,
        masks: bool = False,
        grey: Callable[[Ask], bool] = lambda _: False,
    ) -> None:
        if masks and pipeline.visual_prior is None:
            raise ReleaseError(
                "this model has no visual prior, so no masks can be drawn; install the "
                "release again"
            )
        self._pipeline = pipeline
        self._generator = Generator(pipeline.transformer, pipeline.hffm).eval()
        self._steps = steps
        self._guidance = guidance
        self._masks, self._grey = masks, grey
        self._conditions = Conditions(
            TextEncoder(pipeline.text_encoder, pipeline.tokenizer),
            pipeline.text_mapper.eval(),
            pipeline.device,
        )

    def draw(self, asks: Sequence[Ask]) -> Iterator[Drawn]:
        """Draw the images, in the order of `asks`; as many threads as torch has.

        Raises:
            DataError: if a caption is empty.
            ReleaseError: if the model draws something that is no image.
            ValueError: if a share is not within 0 and 1.
        """
        stop = threading.Event()
        work = partial(self._draw_group, stop=stop)
        device = self._pipeline.device
        with closing(side_by_side(work, groups(asks), device, stop.set)) as drawn:
            for group in drawn:
                yield from group

    @torch.inference_mode()
    def _draw_group(
        self, group: Sequence[Ask], *, stop: threading.Event
    ) -> list[Drawn]:
        # a lane without an image of its own repeats one
        lanes = [group[0]] * LANES
        for ask in group:
            lanes[ask.number % LANES] = ask
        anatomy, style = stacked([self._conditions.of(ask) for ask in lanes])
        latents = sample(
            self._generator,
            self._pipeline.scheduler,
            anatomy,
            style,
            steps=self._steps,
            guidance=self._guidance,
            seeds=[ask.seed for ask in lanes],
            after_step=lambda _, __, current: None if stop.is_set() else current,
        )
        if stop.is_set():  # whoever asked has gone: nobody reads the result
            return []
        return [self._finish(ask, latents[ask.number % LANES]) for ask in group]

    def _finish(self, ask: Ask, latent: Tensor) -> Drawn:
        image = self._pipeline.decode(latent[None].clone())
        if not image.isfinite().all():
            raise ReleaseError(
                f"image {ask.number} came out as no numbers; the model is damaged or "
                f"guidance {self._guidance:g} is too strong for it"
            )
        pixels = self._pipeline.to_pixels(image)
        if self._grey(ask):
            pixels = in_grey(pixels[0])[None]
        mask = self._pipeline.masks_of(pixels)[0] if self._masks else None
        return Drawn(ask, pixels[0], mask)


def groups(asks: Sequence[Ask]) -> Iterator[list[Ask]]:
    """Successive asks of which no two want the same lane."""
    group: list[Ask] = []
    taken: set[int] = set()
    for ask in asks:
        lane = ask.number % LANES
        if lane in taken:
            yield group
            group, taken = [], set()
        group.append(ask)
        taken.add(lane)
    if group:
        yield group
