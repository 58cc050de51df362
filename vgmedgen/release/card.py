"""The model card of a release, in the form that model hubs read.

It is made of the manifest alone, so that whoever holds a release can check that the card
says what the manifest says. Facts have closed forms (see `facts`), and names stand in
backticks, where no page makes anything of them.
"""

from collections.abc import Mapping
from typing import Any

from vgmedgen.config.plan import replace_one
from vgmedgen.config.ranges import digest_of

TEXT = """---
library_name: diffusers
pipeline_tag: text-to-image
inference: false
license: other
license_name: base-and-sites
base_model: base-{base:.16}
base_model_relation: adapter
tags:
- medical
- federated-learning
- synthetic-data
- lora
- peft
---

# Text-to-image adapter of run `{run}`

LoRA factors and a text mapper, trained by {count} without any image leaving one of
them. They turn base bundle `{base:.16}` into a model that draws images of
{image_px} x {image_px} pixels from captions.

## Intended use

Synthetic images for training and teaching, beside real ones, after a look by someone who
knows the modality.

## Out of scope

- Diagnosis, or any decision about a patient.
- Evidence: a synthetic image shows nothing that was seen in anybody.
- Images for which no hospital has run its release gate, wherever the gate can be run.

## Data

Images and captions of {count}. Nothing of them is in this release. Sizes are told
as ranges.

| site | training units |
|---|---|
{data}

## Training

| | |
|---|---|
| run | `{run}` |
| experiment | `{experiment}` |
| rounds | {rounds}: {align_rounds} align, {generate_rounds} generate |
| base | `{base}` |
| source of the base | {base_source} |
| configuration | `{config}` |
| plan | `{plan}`, whole in `plan.json` |
| exchange schema | `{exchange}` |

## Metrics

{metrics}

## Privacy

{privacy}

## Limits

- No clinical validation of any kind.
- The model knows what the sites' images show, in their proportions, and no more: groups
  that are rare there are drawn less well, and whatever bias the data has, the images have.
- Captions steer it weakly where the sites had few examples.

## Verify and install

```sh
vgmedgen release verify FOLDER --key coordinator.pub
vgmedgen-client install FOLDER --site site.yaml
```

The first compares every file with `manifest.json` and the signature with the
coordinator's key. The second also rebuilds the release from its tensors alone and installs
it only if every byte agrees. `adapter` and `hffm_adapter` are PEFT adapters of the base's
transformer and HFFM. An installed release is a folder that diffusers loads after
`import vgmedgen`, with the site's own base in it.

## Licence

- Base: {base_licence}. An adapter is of use with its base only, whose terms go on.
- Data: each site's own, under its own terms; none of it is in here.

The facts above are those of `manifest.json`: their digest is
`{facts}`.
"""

WITHOUT = """\
Only LoRA factors, text-mapper weights and a few declared numbers left the sites. The run
was trained without differential privacy, so nothing is promised: the adapter may reveal
something about single training images."""

WITH = """\
Only LoRA factors, text-mapper weights and two declared numbers left the sites, all of it
under differential privacy: epsilon at most {epsilon:g}, {level}, delta {delta:g}.

What that promises: for all rounds and stages of this run together, against anybody who
sees everything that left the sites, this release included. Adjacency: one {unit}'s record
zeroed out; the number of units is public;
{replaced}.
Accountant: PRV.

What it does not promise:

- It is for one {unit} and for one run. A site's other runs add to it{history}
- It says nothing of what somebody can tell of {one} from elsewhere, nor of
  what holds for everybody like them.
- A hospital's release gate reads training images itself to compare synthetic images with
  them; its verdicts are not covered by epsilon."""

HISTORY = """:

  | site | epsilon spent over all its runs, as it told |
  |---|---|
{rows}
"""

GATE = """

The release gate at a hospital compares synthetic images with that hospital's own training
images. It catches copies, at a stated rate of false alarms; it proves nothing about what a
model has learnt, and this release alone has passed no gate."""

IMAGE_LEVEL = "image-level (a patient with k images is protected k times less, at best)"


def card(manifest: Mapping[str, Any]) -> str:
    """The card of the release that `manifest` describes, with its files or without."""
    told = {name: fact for name, fact in manifest.items() if name != "files"}
    sites = told["sites"]
    data = told.get("data", {})
    words = (
        "run",
        "experiment",
        "config",
        "base",
        "plan",
        "exchange",
        "image_px",
        "rounds",
        "align_rounds",
        "generate_rounds",
    )
    return TEXT.format(
        **{name: told[name] for name in words},
        count=f"{len(sites)} site{'' if len(sites) == 1 else 's'}",
        data="\n".join(
            f"| `{site}` | {data.get(site, 'not told')} |" for site in sites
        ),
        base_source=told["base_source"] or "not told",
        base_licence=told["base_licence"] or "not told",
        metrics=_metrics(told.get("metrics", {}), private="privacy" in told),
        privacy=(_with(told["privacy"]) if "privacy" in told else WITHOUT) + GATE,
        facts=digest_of(told),
    )


def _metrics(told: Mapping[str, Any], *, private: bool) -> str:
    if not told:
        why = "differential privacy covers no loss" if private else "no site told any"
        return f"None: {why}."
    names = {
        "training_loss": "training loss",
        "heldout_loss": "loss on held-out images",
    }
    rows = [
        f"| {text} | {told[name]:.4g} |" for name, text in names.items() if name in told
    ]
    return "\n".join(
        [
            "Denoising losses, means over the sites in the last round that counted. They",
            "say that training went on, not that images are right.",
            "",
            "| metric | value |",
            "|---|---|",
            *rows,
        ]
    )


def _with(told: Mapping[str, Any]) -> str:
    unit = str(told["unit"])
    spent = told["spent"]
    rows = [
        f"  | `{site}` | {epsilon:.3g} |" for site, epsilon in sorted(spent.items())
    ]
    return WITH.format(
        epsilon=told["epsilon"],
        delta=told["delta"],
        replaced=replace_one(told["epsilon"], told["delta"]),
        unit=unit,
        one=f"an {unit}" if unit[0] in "aeiou" else f"a {unit}",
        level=IMAGE_LEVEL if unit == "image" else f"per {unit} or better",
        history=HISTORY.format(rows="\n".join(rows)) if rows else ".",
    )
