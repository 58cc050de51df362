"""Which images are drawn without colour: those of a kind that has none at this site.

A model of all modalities leaves a tint in what it draws, where an ultrasound machine knows
only grey. What a site's own images of a modality are, the drawn ones become.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgmedgen.data import images
from vgmedgen.data.records import Record
from vgmedgen.site.folder import Site
from vgmedgen.synthesis.asked import Ask
from vgmedgen.synthesis.choices import modality_of

LOOKED_AT = 40  # images of a dataset, spread over all of it
PX = 64  # side at which they are
COLOURLESS = 8  # grey levels that channels may differ by, as JPEG leaves them
OF_PIXELS = 0.99  # share of an image's pixels that have no colour; marks may have some
OF_IMAGES = 0.95  # share of a modality's images that have none


@dataclass(frozen=True)
class Greys:
    """What a site has in grey.

    Attributes:
        among: every modality of the site.
        grey: those whose images have no colour.
    """

    among: frozenset[str]
    grey: frozenset[str]

    @classmethod
    def of(cls, site: Site) -> "Greys":
        """Look at some images of every dataset of a site.

        Raises:
            DataError: if one cannot be read.
        """
        counts: dict[str, list[bool]] = {}
        for dataset in site.datasets:
            step = -(-len(dataset.records) // LOOKED_AT)
            seen = counts.setdefault(dataset.modality, [])
            seen += [_is_grey(record) for record in dataset.records[::step]]
        grey = {name for name, seen in counts.items() if np.mean(seen) >= OF_IMAGES}
        return cls(frozenset(counts), frozenset(grey))

    def __call__(self, ask: Ask) -> bool:
        """Whether the image that `ask` describes is one without colour."""
        told = modality_of(ask.prompt, ask.label, self.among)
        # of several an image that tells none is of no known kind, even if one has no name
        return told in self.grey and bool(told or len(self.among) == 1)


def in_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) without colour: three times their luma (ITU-R BT.601)."""
    luma = np.asarray(Image.fromarray(pixels).convert("L"))
    return np.repeat(luma[..., None], 3, axis=2)


def _is_grey(record: Record) -> bool:
    image, _ = images.load(record, PX)  # (3, H, W)
    apart = image.amax(0) - image.amin(0)
    return bool((apart <= COLOURLESS).float().mean() >= OF_PIXELS)
