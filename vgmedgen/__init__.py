"""Federated, privacy-aware training of medical text-to-image diffusion."""

__version__ = "0.1.0"
