"""HFFM and DiT: from anatomy and style vectors to latents, and how they learn."""
