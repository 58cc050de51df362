"""Images to latents and back, with the frozen VAE of a base bundle."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn


class Codec(nn.Module):
    """Turns images into latents of about unit variance, deterministically.

    Source of the scale factor: Rombach et al. 2022, arXiv 2112.10752, section 4 and
    appendix G; here it is whatever the bundle's VAE config says.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(requires_grad=False).eval()

    @classmethod
    def load(cls, folder: Path) -> "Codec":
        """Read the VAE below a bundle or pipeline folder."""
        return cls(AutoencoderKL.from_pretrained(folder, use_safetensors=True))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents of images.

        Each image is encoded by itself: a convolution rounds by the size of its batch, and
        a latent has to be a function of its own image to the last bit.

        Args:
            images: (B, 3, H, W) in [-1, 1], H and W multiples of the VAE's stride.

        Returns:
            (B, 4, h, w): the mean of the VAE's posterior, scaled; two calls agree.
        """
        means = [
            self.vae.encode(one).latent_dist.mode() for one in torch.split(images, 1)
        ]
        return torch.as_tensor(torch.cat(means) * self.vae.config.scaling_factor)

    def decode(self, latents: Tensor) -> Tensor:
        """Images in about [-1, 1] of latents; carries gradient for the colour loss."""
        return torch.as_tensor(
            self.vae.decode(latents / self.vae.config.scaling_factor).sample
        )
