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

{privacy}

## Limits

The model knows what the sites' images show, in their proportions, and no more. Captions
steer it weakly where the sites had few examples.
"""


WITHOUT = """\
Only LoRA factors and text-mapper weights left the sites. This run was trained without
differential privacy: the adapter may reveal something about single training images, and
no synthetic image has been checked against them."""

WITH = """\
Only LoRA factors, text-mapper weights and two declared numbers left the sites, all of it
under differential privacy: epsilon at most {epsilon:g}, {level}, delta {delta:g}, for all
rounds and stages of this run together, against anyone who sees everything that left.
Adjacency: one {unit}'s record zeroed out; the number of units is public. Accountant: PRV.
{history}

No synthetic image has been checked against the training images."""

HISTORY = """
| site | epsilon spent over all its runs, as it told |
|---|---|
{rows}"""

IMAGE_LEVEL = "image-level (a patient with k images is protected k times less, at best)"


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
        privacy=_privacy(told["privacy"]) if "privacy" in told else WITHOUT,
    )


def _privacy(told: Mapping[str, Any]) -> str:
    unit = str(told["unit"])
    rows = [f"| {site} | {epsilon:.3g} |" for site, epsilon in told["spent"].items()]
    return WITH.format(
        epsilon=told["epsilon"],
        delta=told["delta"],
        unit=unit,
        level=IMAGE_LEVEL if unit == "image" else f"per {unit} or better",
        history=HISTORY.format(rows="\n".join(rows)),
    )
