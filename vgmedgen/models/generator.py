"""The generator: HFFM and DiT behind one call that predicts noise, or velocity."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import ModelMixin, PixArtTransformer2DModel
from torch import Tensor, nn

from vgmedgen.config.run import ModelConfig
from vgmedgen.models.hffm import HFFM

LATENT_CHANNELS = 4
ADDITIONAL_SIDE = 128  # latent side from which PixArt was also told the image's size
PIXELS_PER_LATENT = 8


class Generator(nn.Module):
    """HFFM and the diffusers PixArt transformer.

    Shapes: B batch, h and w latent sides, A and S vector widths, n tokens per channel,
    D caption width.

    Source: PixArt-alpha, arXiv 2310.00426, with the text tokens replaced by the HFFM's,
    as in VG-MedGen, arXiv 2603.10519.
    """

    def __init__(self, transformer: PixArtTransformer2DModel, hffm: HFFM) -> None:
        super().__init__()
        self.transformer = transformer
        self.hffm = hffm

    @classmethod
    def build(
        cls,
        model: ModelConfig,
        seed: int,
        *,
        learned_sigma: bool = False,
        pretrained: PixArtTransformer2DModel | None = None,
    ) -> "Generator":
        """A generator with random weights, the same for the same seed.

        Args:
            model: sizes.
            seed: of all weights.
            learned_sigma: predict four more channels, which go unused, as PixArt-XL.
            pretrained: transformer to use as it is; only the HFFM starts at random then.
        """
        with _default_seed(seed):
            transformer = pretrained or _transformer(model, learned_sigma=learned_sigma)
            hffm = HFFM(
                anatomy_width=model.anatomy,
                style_width=model.style,
                hidden_width=model.hffm_hidden,
                tokens_per_channel=model.tokens_per_channel,
                token_width=transformer.config.caption_channels,
            )
        return cls(transformer, hffm)

    @classmethod
    def load(cls, folder: Path) -> "Generator":
        """Read the parts `transformer` and `hffm` of a bundle or pipeline folder."""
        transformer = PixArtTransformer2DModel.from_pretrained(
            folder / "transformer", use_safetensors=True
        )
        hffm = HFFM.from_pretrained(folder / "hffm", use_safetensors=True)
        forget_origin(transformer)
        forget_origin(hffm)
        return cls(transformer, hffm)

    def save(self, folder: Path) -> None:
        """Write the parts `transformer` and `hffm` below `folder`.

        Raises:
            ValueError: if LoRA is still attached; merge it first.
        """
        if not isinstance(self.transformer, PixArtTransformer2DModel):
            raise ValueError(  # noqa: TRY004
                "LoRA is attached: merge it, or save the adapter alone"
            )
        self.transformer.save_pretrained(folder / "transformer")
        self.hffm.save_pretrained(folder / "hffm")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (4, h, w) of one latent at the size that the DiT was made for."""
        side = self.transformer.config.sample_size
        return (LATENT_CHANNELS, side, side)

    def tokens(self, anatomy: Tensor, style: Tensor) -> Tensor:
        """Conditioning tokens (B, 2 n, D) of vectors (B, A) and (B, S)."""
        dtype = _dtype(self.hffm)
        return torch.as_tensor(self.hffm(anatomy.to(dtype), style.to(dtype)))

    def denoise(self, latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The noise in `latents`, or the velocity, as the base's schedule says.

        Args:
            latents: (B, 4, h, w), noisy.
            timesteps: (B,), steps of the schedule.
            tokens: (B, 2 n, D).

        Returns:
            (B, 4, h, w) in the type of `latents`; a learned sigma is dropped.
        """
        dtype = _dtype(self.transformer)
        predicted = self.transformer(
            latents.to(dtype),
            tokens.to(dtype),
            timesteps,
            self._size_condition(latents),
            return_dict=False,
        )[0]
        return torch.as_tensor(predicted[:, :LATENT_CHANNELS]).to(latents.dtype)

    def predict(
        self, latents: Tensor, timesteps: Tensor, anatomy: Tensor, style: Tensor
    ) -> Tensor:
        """`denoise` of (B, 4, h, w) by anatomy (B, A) and style (B, S)."""
        return self.denoise(latents, timesteps, self.tokens(anatomy, style))

    def checkpoint_gradients(self, *, on: bool) -> None:
        """Trade time for memory: recompute the DiT's blocks in the backward pass."""
        if on:
            self.transformer.enable_gradient_checkpointing()
        else:
            self.transformer.disable_gradient_checkpointing()

    def _size_condition(self, latents: Tensor) -> dict[str, Tensor | None]:
        """What PixArt at 1024 px is told of the image's size; nothing below that."""
        if not self.transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        count, _, height, width = latents.shape
        size = latents.new_tensor([height, width]) * PIXELS_PER_LATENT
        return {
            "resolution": size.expand(count, 2),
            "aspect_ratio": latents.new_full((count, 1), height / width),
        }


def _transformer(
    model: ModelConfig, *, learned_sigma: bool
) -> PixArtTransformer2DModel:
    side = model.image_px // 2 ** (len(model.vae_channels) - 1)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=model.dit_heads,
        attention_head_dim=model.dit_head_width,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS * (2 if learned_sigma else 1),
        num_layers=model.dit_layers,
        cross_attention_dim=model.dit_heads * model.dit_head_width,
        sample_size=side,
        patch_size=model.dit_patch,
        use_additional_conditions=side == ADDITIONAL_SIDE,
        caption_channels=model.caption_width,
    )
    _start_as_pixart(transformer)
    return transformer


@torch.no_grad()
def _start_as_pixart(transformer: PixArtTransformer2DModel) -> None:
    """Initialise as PixArt was; diffusers, which expects pretrained weights, does not.

    Every block starts without a say of the condition and the last layer without any, so
    that what training adds is what the images and captions ask for.
    Source: PixArt-alpha's published code, `initialize_weights` of its PixArt model.
    """
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    patches = transformer.pos_embed.proj
    nn.init.xavier_uniform_(patches.weight.flatten(1))
    for part in (transformer.adaln_single, transformer.caption_projection):
        for module in part.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
    for block in transformer.transformer_blocks:
        nn.init.zeros_(block.attn2.to_out[0].weight)
    nn.init.zeros_(transformer.proj_out.weight)


def _dtype(module: nn.Module) -> torch.dtype:
    """Type of a part's own weights; LoRA factors may have another."""
    return next(module.parameters()).dtype


def forget_origin(part: ModelMixin) -> None:
    """Drop the name of the folder that a part was read from.

    Else it is written into every copy: a machine's path leaves, and the releases of two
    sites differ.
    """
    part.register_to_config(_name_or_path="")


@contextmanager
def _default_seed(seed: int) -> Iterator[None]:
    """Seed torch's own CPU generator, which initialisers draw from, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
