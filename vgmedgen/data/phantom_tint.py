"""A device's tint: what a camera or scanner does to the colours of all its images."""

from dataclasses import dataclass

import numpy as np

from vgmedgen.data.phantom_noise import Plane, grid


@dataclass(frozen=True, kw_only=True)
class Tint:
    """How one device renders colour; it never moves anything.

    Attributes:
        gain: Factor of each channel (red, green, blue).
        offset: Added to each channel, as a share of full scale.
        gamma: Exponent of brightness; above 1 darkens the middle tones.
        vignette: Share of light lost in the corners, 0 to 1.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gamma: float = 1.0
    vignette: float = 0.0

    def apply(self, canvas: Plane, *, grey: bool = False) -> Plane:
        """Tint a canvas (px, px, 3) in [0, 1]; the result is clipped to [0, 1].

        Args:
            canvas: Colours before the device.
            grey: Give all three channels the mean gain and offset, so that an
                ultrasound image stays grey.
        """
        gain = np.asarray(self.gain, dtype=np.float32)
        offset = np.asarray(self.offset, dtype=np.float32)
        if grey:
            gain, offset = gain.mean(keepdims=True), offset.mean(keepdims=True)
        shown = np.clip(canvas, 0, 1)
        if self.gamma != 1:
            shown = shown**self.gamma
        shown = shown * gain + offset
        if self.vignette:
            x, y = grid(canvas.shape[0])
            loss = self.vignette * 2 * (np.square(x - 0.5) + np.square(y - 0.5))
            shown = shown * (1 - loss)[..., None]
        return np.asarray(np.clip(shown, 0, 1), dtype=np.float32)


NEUTRAL = Tint()


def tint_of(seed: int) -> Tint:
    """Tint of device number `seed`: the same seed is the same device."""
    rng = np.random.default_rng([7, seed])
    red, green, blue = (float(value) for value in rng.uniform(0.87, 1.09, 3))
    lift = tuple(float(value) for value in rng.uniform(-0.04, 0.05, 3))
    return Tint(
        gain=(red, green, blue),
        offset=(lift[0], lift[1], lift[2]),
        gamma=float(np.exp(rng.uniform(-0.25, 0.25))),
        vignette=float(rng.uniform(0, 0.35)),
    )
