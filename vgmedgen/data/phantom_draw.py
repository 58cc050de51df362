"""Draw one phantom of a modality: plan a lesion, paint it, pass it through a device."""

from types import ModuleType

import numpy as np

from vgmedgen.data import phantom_breast, phantom_gut, phantom_skin
from vgmedgen.data.phantom_outline import Lesion
from vgmedgen.data.phantom_tint import NEUTRAL, Tint
from vgmedgen.data.phantom_truth import Phantom

MODALITIES = ("dermoscopy", "ultrasound", "endoscopy")
SMALLEST = 16  # px; below it no structure is left to see

_PAINTERS: dict[str, ModuleType] = {
    "dermoscopy": phantom_skin,
    "ultrasound": phantom_breast,
    "endoscopy": phantom_gut,
}


def shares(modality: str) -> dict[str, float]:
    """Labels that `modality` draws and how often each, summing to 1."""
    return dict(_painter(modality).SHARES)


def draw(
    modality: str,
    rng: np.random.Generator,
    px: int,
    tint: Tint = NEUTRAL,
    *,
    label: str | None = None,
) -> Phantom:
    """Draw a phantom; the same state of `rng` gives the same bytes.

    Args:
        modality: One of `MODALITIES`.
        rng: Source of everything.
        px: Side in pixels, at least 16.
        tint: The device.
        label: Class to draw; by default drawn from `shares`.

    Raises:
        ValueError: if the modality or the label does not exist, or px is too small.
    """
    frequencies = shares(modality)
    chosen = str(rng.choice(list(frequencies), p=list(frequencies.values())))
    if label is not None:
        if label not in frequencies:
            raise ValueError(
                f"{modality} draws {', '.join(frequencies)}, not '{label}'"
            )
        chosen = label
    lesion: Lesion = _painter(modality).plan(rng, chosen)
    facts = phantom_skin.facts(rng, chosen) if modality == "dermoscopy" else {}
    return photograph(modality, lesion, facts, rng=rng, px=px, tint=tint)


def photograph(
    modality: str,
    lesion: Lesion,
    facts: dict[str, str],
    *,
    rng: np.random.Generator,
    px: int,
    tint: Tint,
) -> Phantom:
    """Paint a planned lesion and take its image.

    What belongs to the lesion comes from its own grain; all the rest from `rng`.
    """
    if px < SMALLEST:
        raise ValueError(f"px must be at least {SMALLEST}, got {px}")
    painting = _painter(modality).paint(lesion, rng, px)
    shown = tint.apply(painting.canvas, grey=modality == "ultrasound")
    return Phantom(
        image=np.asarray(shown * 255 + 0.5, dtype=np.uint8),
        mask=painting.mask,
        label=lesion.label,
        drawn=painting.drawn,
        facts=facts,
    )


def _painter(modality: str) -> ModuleType:
    if modality not in _PAINTERS:
        raise ValueError(
            f"modality must be one of {', '.join(_PAINTERS)}: '{modality}'"
        )
    return _PAINTERS[modality]
