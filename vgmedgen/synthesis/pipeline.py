"""Prompt to image, as a diffusers pipeline: one folder with a model_index.json.

```python
pipeline = VGMedGenPipeline.from_pretrained("releases/current")
pipeline("a dermoscopic image of a melanoma", seeds=[7]).images[0].save("image.png")
```
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from vgmedgen.dit.codec import Codec
from vgmedgen.dit.hffm import HFFM
from vgmedgen.dit.model import Generator
from vgmedgen.dit.sampler import sample, solver
from vgmedgen.text.encoder import TextEncoder
from vgmedgen.text.mapper import TextMapper

PACKAGE = "vgmedgen"
SEED_RANGE = 2**63 - 1


@dataclass
class Synthesis(BaseOutput):  # type: ignore[misc]  # diffusers is untyped
    """What one call drew.

    Attributes:
        images: one per prompt: PIL images, an array (B, H, W, 3) or a tensor
            (B, 3, H, W) in [0, 1], or latents (B, 4, h, w), as asked.
        seeds: draw the same images again.
    """

    images: Any
    seeds: list[int]


class VGMedGenPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Text encoder, text mapper, HFFM, DiT and VAE of one release.

    `scheduler` may be the one of training, from which DPM-Solver++ is then made.
    """

    model_cpu_offload_seq = "text_encoder->text_mapper->hffm->transformer->vae"

    def __init__(
        self,
        transformer: PixArtTransformer2DModel,
        hffm: HFFM,
        text_mapper: TextMapper,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        vae: AutoencoderKL,
        scheduler: SchedulerMixin,
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
        )
        self.processor = VaeImageProcessor()

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, **options: object
    ) -> "VGMedGenPipeline":
        """Read a pipeline folder from this disk; weights come from safetensors only.

        Args:
            folder: holds model_index.json.
            options: as diffusers takes them.
        """
        told = {"use_safetensors": True, "local_files_only": True, **options}
        return super().from_pretrained(folder, **told)  # type: ignore[no-any-return]

    def register_modules(self, **modules: object) -> None:
        """Register the parts, ours by the package alone.

        diffusers would write the module that a class happens to live in, and no folder
        would outlive a move.
        """
        super().register_modules(**modules)
        for name, part in modules.items():
            if type(part).__module__.split(".")[0] == PACKAGE:
                self.register_to_config(**{name: (PACKAGE, type(part).__name__)})

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        seeds: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        num_inference_steps: int = 25,
        guidance_scale: float = 4.5,
        output_type: str = "pil",
    ) -> Synthesis:
        """Draw one image per prompt.

        An image depends on its prompt and its seed; up to rounding, the other prompts
        of the call do not matter.

        Args:
            prompt: one caption or several.
            seeds: one per prompt.
            generator: draws the seeds where none are given; without either they are
                fresh.
            num_inference_steps: of the solver.
            guidance_scale: 1 follows the prompt as trained; more exaggerates it.
            output_type: pil, np, pt or latent.

        Returns:
            The images, and the seeds that they were drawn from.

        Raises:
            ValueError: if there is no prompt, or not one seed per prompt.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise ValueError("no prompt was given")
        if seeds is None:
            seeds = _fresh_seeds(len(prompts), generator)
        embedding = TextEncoder(self.text_encoder, self.tokenizer).embed(prompts)
        device, dtype = self.text_mapper.device, self.text_mapper.dtype
        anatomy, style = self.text_mapper(embedding.to(device, dtype))
        latents = sample(
            Generator(self.transformer, self.hffm),
            self.scheduler,
            anatomy,
            style,
            steps=num_inference_steps,
            guidance=guidance_scale,
            seeds=seeds,
        )
        if output_type == "latent":
            return Synthesis(images=latents, seeds=list(seeds))
        images = Codec(self.vae).decode(latents.to(self.vae.dtype))
        return Synthesis(
            images=self.processor.postprocess(images, output_type=output_type),
            seeds=list(seeds),
        )


def _fresh_seeds(count: int, generator: torch.Generator | None) -> list[int]:
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    drawn = torch.randint(
        SEED_RANGE, (count,), generator=generator, device=generator.device
    )
    return [int(seed) for seed in drawn]
