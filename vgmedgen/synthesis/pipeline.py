"""Prompt to image, as a diffusers pipeline: one folder with a model_index.json.

```python
pipeline = VGMedGenPipeline.from_pretrained(folder)  # of an installed release
pipeline("a dermoscopic image of a melanoma", seeds=[7]).images[0].save("image.png")
```
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DiffusionPipeline,
    PixArtTransformer2DModel,
    SchedulerMixin,
)
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from vgmedgen.config.run import DRAWING_STEPS, GUIDANCE
from vgmedgen.data.images import as_input, as_uint8
from vgmedgen.models.codec import Codec
from vgmedgen.models.generator import Generator
from vgmedgen.models.hffm import HFFM
from vgmedgen.models.objective import Schedule
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.models.sampler import check_solver, sample, solver
from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.synthesis import arguments
from vgmedgen.synthesis.control import Conditions, stacked

PACKAGE = "vgmedgen"

AfterStep = Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any] | None]


@dataclass
class Synthesis(BaseOutput):  # type: ignore[misc]  # diffusers is untyped
    """What one call drew.

    Attributes:
        images: one per prompt and copy: PIL images, an array (B, H, W, 3) or a tensor
            (B, 3, H, W) in [0, 1], or latents (B, 4, h, w), as asked.
        seeds: draw the same images again.
        masks: (B, H, W) of 0 and 1, uint8; None where none were asked for.
    """

    images: Any
    seeds: list[int]
    masks: NDArray[np.uint8] | None = None


class VGMedGenPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Text encoder, text mapper, HFFM, DiT and VAE of one release.

    `scheduler` may be the one of training, from which DPM-Solver++ is then made.
    `visual_prior`, for masks, is the public one of the base bundle.
    """

    model_cpu_offload_seq = (
        "text_encoder->text_mapper->hffm->transformer->vae->visual_prior"
    )
    _optional_components = ["visual_prior"]  # noqa: RUF012  # as diffusers declares it
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012

    def __init__(
        self,
        transformer: PixArtTransformer2DModel,
        hffm: HFFM,
        text_mapper: TextMapper,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        vae: AutoencoderKL,
        scheduler: SchedulerMixin,
        visual_prior: VisualPrior | None = None,
    ) -> None:
        super().__init__()
        if isinstance(scheduler, DDPMScheduler):
            scheduler = solver(scheduler)
        self.register_modules(
            transformer=transformer,
            hffm=hffm,
            text_mapper=text_mapper,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            vae=vae,
            scheduler=scheduler,
            visual_prior=visual_prior,
        )
        self.processor = VaeImageProcessor()
        self._trained = Schedule.of(scheduler)
        self._interrupt = False

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, **options: object
    ) -> "VGMedGenPipeline":
        """Read a pipeline folder from this disk; weights come from safetensors only.

        Args:
            folder: holds model_index.json.
            options: as diffusers takes them.

        Raises:
            OSError: if there is no such folder, or it holds other weights.
            ValueError: if the folder or an option would have foreign code run.
        """
        arguments.refuse_code(Path(folder), options)
        told = {**options, "use_safetensors": True, "local_files_only": True}
        usual = torch.get_default_dtype()
        try:
            pipeline: VGMedGenPipeline = super().from_pretrained(folder, **told)
        finally:  # diffusers leaves the wanted type behind where a part fails to load
            torch.set_default_dtype(usual)
        # one that was given in `options` may follow another schedule
        pipeline._trained = Schedule.load(Path(folder) / "scheduler")
        return pipeline

    def register_modules(self, **modules: object) -> None:
        """Register the parts, ours by the package alone.

        diffusers would write the module that a class happens to live in, and no folder
        would outlive a move.
        """
        super().register_modules(**modules)
        for name, part in modules.items():
            if type(part).__module__.split(".")[0] == PACKAGE:
                self.register_to_config(**{name: (PACKAGE, type(part).__name__)})

    @property
    def interrupt(self) -> bool:
        """Whether a callback has asked, through `_interrupt`, to stop drawing."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        anatomy_prompt: arguments.Words = None,
        style_prompt: arguments.Words = None,
        towards_prompt: arguments.Words = None,
        share: float | Sequence[float] = 0.0,
        num_images_per_prompt: int = 1,
        num_inference_steps: int = DRAWING_STEPS,
        guidance_scale: float = GUIDANCE,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        seeds: Sequence[int] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: AfterStep | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        output_masks: bool = False,
        strict: bool = False,
    ) -> Synthesis | tuple[Any, ...]:
        """Draw images: `num_images_per_prompt` of the first prompt, then of the next.

        An image depends on what it is asked to show and on its seed; up to rounding, the
        other images of the call do not matter. `Drawer` leaves out the rounding.

        Args:
            prompt: one caption or several.
            anatomy_prompt: captions to take the anatomy from instead, one for all or
                one per prompt.
            style_prompt: captions to take the style from instead.
            towards_prompt: captions to move anatomy and style towards.
            share: how far, 0 to 1.
            num_images_per_prompt: copies that differ by their seeds.
            num_inference_steps: of the solver; fewer than the steps of training.
            guidance_scale: 1 follows the prompt as trained; more exaggerates it.
            generator: draws the seeds, or one generator per image that draws its seed.
            seeds: one per image; without these and a generator they are fresh.
            latents: noise (B, 4, h, w) to start from in place of that of the seeds.
            output_type: pil, np, pt or latent.
            return_dict: False gives a tuple that starts with the images.
            callback_on_step_end: called with the pipeline, the step, the timestep and
                the latents by name; what it returns replaces them. Setting
                `_interrupt` of the pipeline ends the drawing there.
            callback_on_step_end_tensor_inputs: `latents` is all there is.
            output_masks: also give what the visual prior sees as lesion.
            strict: refuse a prompt that the text encoder cannot take whole.

        Returns:
            The images, the seeds that they were drawn from, and masks if asked for.

        Raises:
            TypeError: if an argument is of another type.
            ValueError: if an argument, or a number of them, is not as told above, or
                the model draws something that is no image, or the scheduler was
                exchanged for one that does not fit the model.
        """
        check_solver(self.scheduler, self._trained)
        arguments.check_types(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            latents=latents,
            callback_on_step_end=callback_on_step_end,
        )
        told = arguments.Told(
            steps=num_inference_steps,
            guidance=guidance_scale,
            copies=num_images_per_prompt,
            output_type=output_type,
            masks=output_masks,
        )
        told.check(
            has_prior=self.visual_prior is not None,
            most=self.scheduler.config.num_train_timesteps - 1,
        )
        inputs = arguments.tensor_inputs(
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
            self._callback_tensor_inputs,
        )
        asks = arguments.asks_of(
            prompt,
            anatomy=anatomy_prompt,
            style=style_prompt,
            towards=towards_prompt,
            share=share,
            copies=num_images_per_prompt,
            seeds=seeds,
            generator=generator,
        )
        encoder = TextEncoder(self.text_encoder, self.tokenizer)
        arguments.tell_dropped(encoder, asks, strict=strict)
        conditions = Conditions(encoder, self.text_mapper, self._execution_device)
        anatomy, style = stacked([conditions.of(ask) for ask in asks])
        self._interrupt = False
        with self.progress_bar(total=num_inference_steps) as bar:

            def after(step: int, timestep: Tensor, current: Tensor) -> Tensor | None:
                if callback_on_step_end is not None:
                    named = dict.fromkeys(inputs, current)
                    given = callback_on_step_end(self, step, timestep, named)
                    current = arguments.replaced(given, current)
                bar.update()
                return None if self._interrupt else current

            drawn = sample(
                Generator(self.transformer, self.hffm),
                self.scheduler,
                anatomy,
                style,
                steps=num_inference_steps,
                guidance=guidance_scale,
                seeds=[ask.seed for ask in asks],
                latents=latents,
                after_step=after,
            )
        arguments.check_finite("the result", drawn)
        result = self._result(drawn, [ask.seed for ask in asks], told)
        self.maybe_free_model_hooks()
        return result if return_dict else result.to_tuple()

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in about [-1, 1] of latents (B, 4, h, w)."""
        with torch.no_grad():
            return Codec(self.vae).decode(latents.to(self.vae.dtype)).float()

    def to_pixels(self, images: Tensor) -> NDArray[np.uint8]:
        """Pixels (B, H, W, 3) of images (B, 3, H, W) in about [-1, 1]."""
        pixels: NDArray[np.uint8] = as_uint8(images).movedim(1, -1).cpu().numpy()
        return np.ascontiguousarray(pixels)

    def masks_of(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the visual prior sees as lesion: (B, H, W) of 0 and 1.

        A function of each image's pixels (H, W, 3) alone, to the bit: they are looked at
        one by one.

        Raises:
            ValueError: if the pipeline has no visual prior.
        """
        if self.visual_prior is None:
            raise ValueError("this pipeline has no visual prior, so it draws no masks")
        prior = self.visual_prior.eval()
        seen = []
        for one in torch.from_numpy(np.array(pixels)).movedim(-1, 1):
            image = as_input(one[None]).contiguous()
            with torch.no_grad():
                logits = prior(
                    image.to(self._execution_device, prior.dtype)
                ).mask_logits
            seen.append((logits[0, 0] > 0).byte().cpu().numpy())
        return np.stack(seen)

    def _result(
        self, latents: Tensor, seeds: list[int], told: arguments.Told
    ) -> Synthesis:
        if told.output_type == "latent":
            return Synthesis(images=latents, seeds=seeds)
        images = self.decode(latents)
        arguments.check_finite("a decoded image", images)
        pixels = self.to_pixels(images)
        masks = self.masks_of(pixels) if told.masks else None
        given: Any = [Image.fromarray(one) for one in pixels]
        if told.output_type != "pil":
            given = self.processor.postprocess(images, output_type=told.output_type)
        return Synthesis(images=given, seeds=seeds, masks=masks)
