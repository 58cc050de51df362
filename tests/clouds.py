"""Pictures made of noise whose power falls as in real ones, no two alike."""

import numpy as np
import torch

from vgmedgen.gate.whitening import grey

SIDE = 64


def texture(seed: int, side: int = SIDE) -> np.ndarray:
    """A cloud (side, side, 3) of 8 bits, no two alike: noise whose power falls as 1/f^2."""
    rng = np.random.default_rng(seed)
    axis = np.fft.fftfreq(side)
    radius = np.hypot(axis[:, None], axis)
    radius[0, 0] = 1
    wave = np.fft.fft2(rng.normal(size=(side, side))) / radius
    wave[0, 0] = 0
    cloud = np.fft.ifft2(wave).real
    level = 128 + 45 * cloud / cloud.std()
    return np.repeat(np.clip(level, 0, 255)[..., None], 3, -1).astype(np.uint8)


def greys(pictures) -> torch.Tensor:
    stacked = torch.from_numpy(np.stack(pictures)).movedim(-1, 1)
    return grey(stacked.float() / 127.5 - 1)
