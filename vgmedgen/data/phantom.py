"""Phantoms: images with masks, drawn from known attributes in three modalities.

They are the ground truth of control tests and the public images that a tiny base is
made from. Everything is deterministic by its generator or seed.

```python
phantom = draw("dermoscopy", np.random.default_rng(0), 64, tint_of(3))
phantom.image, phantom.mask, phantom.label, phantom.drawn.area
```
"""

from vgmedgen.data.phantom_draw import MODALITIES, draw, shares
from vgmedgen.data.phantom_textures import textures
from vgmedgen.data.phantom_tint import NEUTRAL, Tint, tint_of
from vgmedgen.data.phantom_truth import DrawnAttributes, Phantom, position_of
from vgmedgen.data.phantom_write import (
    ATTRIBUTES,
    write_busi,
    write_ham10000,
    write_kvasir_seg,
)

__all__ = [
    "ATTRIBUTES",
    "MODALITIES",
    "NEUTRAL",
    "DrawnAttributes",
    "Phantom",
    "Tint",
    "draw",
    "position_of",
    "shares",
    "textures",
    "tint_of",
    "write_busi",
    "write_ham10000",
    "write_kvasir_seg",
]
