"""Write a release folder from a base bundle and the weights of a finished run.

The same function runs at the coordinator, which publishes the folder, and at every site,
which rebuilds it from the tensors that the exchange schema allows and compares digests:
so nothing but schema tensors has to travel, and every site ends with the same bytes.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from vgmedgen.base import Bundle
from vgmedgen.config.plan import RunPlan
from vgmedgen.exchange.payload import on_wire
from vgmedgen.exchange.schema import ExchangeSchema
from vgmedgen.files import write_bytes, write_text
from vgmedgen.models import lora
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.release import facts as forms
from vgmedgen.release.card import card
from vgmedgen.release.verify import CARD, MANIFEST, PLAN, manifest_json, parts_of
from vgmedgen.release.weights import (
    ADAPTER,
    HFFM_ADAPTER,
    MAPPER_FILE,
    TEXT_MAPPER,
    Weights,
)
from vgmedgen.training.rounds import Workbench


def write(
    folder: Path,
    bundle: Bundle,
    plan: RunPlan,
    weights: Weights,
    facts: Mapping[str, Any],
    bench: Workbench | None = None,
) -> dict[str, Any]:
    """Write adapters, text mapper, plan, model card and manifest below `folder`.

    Args:
        folder: is replaced when the release is whole.
        bundle: the base that the run trained on.
        plan: of the run.
        weights: both groups of the exchange, rounded to what a message can carry.
        facts: what the manifest tells of the run; plain JSON of closed forms (see
            `vgmedgen.release.facts`). What follows from the base and the plan is theirs.
        bench: models of that base and plan, if they are loaded already.

    Returns:
        The manifest.

    Raises:
        ReleaseError: if a fact has another form than its own; nothing was written.
        ExchangeError: if the weights are not those of the base and plan.
    """
    bench = bench or Workbench.open(bundle, plan, torch.device("cpu"))
    schema = ExchangeSchema.of(bench.states())
    told = {
        **forms.given(facts),
        "form": forms.FORM,
        "base": bundle.digest,
        "base_licence": forms.plain(bundle.manifest.get("licence", "")),
        "base_source": forms.plain(bundle.manifest.get("source", "")),
        "image_px": bundle.image_px,
        "plan": plan.digest,
        "exchange": schema.digest,
        "rounds": plan.align_rounds + plan.generate_rounds,
        "align_rounds": plan.align_rounds,
        "generate_rounds": plan.generate_rounds,
    }
    forms.check(told, plan)
    bench.take({g: on_wire(weights[g], specs) for g, specs in schema.groups.items()})
    work = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    lora.save_adapter(bench.generator, work / ADAPTER)
    lora.save_hffm_adapter(bench.generator, work / HFFM_ADAPTER)
    _save_mapper(bench.mapper, bundle, work / TEXT_MAPPER)
    write_text(work / PLAN, plan.to_json())
    write_text(work / CARD, card(told))
    manifest = {**told, "files": parts_of(work)}
    write_text(work / MANIFEST, manifest_json(manifest))
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return manifest


def _save_mapper(mapper: TextMapper, bundle: Bundle, folder: Path) -> None:
    """Write the mapper as diffusers does, with the config that the base has.

    diffusers would note its own version in it, and the releases of two sites differ.
    """
    state = {n: t.detach().cpu().contiguous() for n, t in mapper.state_dict().items()}
    write_bytes(folder / MAPPER_FILE, save(state, {"format": "pt"}))
    config = bundle.part(TEXT_MAPPER) / "config.json"
    write_bytes(folder / "config.json", config.read_bytes())
