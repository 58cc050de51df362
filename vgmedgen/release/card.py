"""The model card of a release, in the form that model hubs read."""

from collections.abc import Mapping
from typing import Any

TEXT = """---
library_name: diffusers
pipeline_tag: text-to-image
tags: [medical, federated-learning, lora, synthetic-data]
---

# {title}

A text-to-image adapter trained by {count} sites without any image leaving one of them.

- Run `{run}`, {rounds} rounds ({align_rounds} align, {generate_rounds} generate)
- Sites that took part: {sites}
- Base bundle `{base}`, images of {image_px} px
- Configuration `{config}`, plan `{plan}`

## Intended use

Synthetic images for training and teaching, beside real ones, after a look by someone who
knows the modality. Not for diagnosis.

## Privacy

Only LoRA factors and text-mapper weights left the sites. This run was trained without
differential privacy: the adapter may reveal something about single training images, and
no synthetic image has been checked against them.

## Limits

The model knows what the sites' images show, in their proportions, and no more. Captions
steer it weakly where the sites had few examples.
"""


def card(told: Mapping[str, Any]) -> str:
    """Fill the card from what the manifest tells."""
    sites = [str(site) for site in told["sites"]]
    return TEXT.format(
        title=told["experiment"],
        count=len(sites),
        run=told["run"],
        rounds=told["rounds"],
        align_rounds=told["align_rounds"],
        generate_rounds=told["generate_rounds"],
        sites=", ".join(sites),
        base=str(told["base"])[:16],
        image_px=told["image_px"],
        config=str(told["config"])[:16],
        plan=str(told["plan"])[:16],
    )
