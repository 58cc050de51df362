"""Write a release folder from a base bundle and the weights of a finished run.

The same function runs at the coordinator, which publishes the folder, and at every site,
which rebuilds it from the tensors that the exchange schema allows and compares digests:
so nothing but schema tensors has to travel, and every site ends with the same bytes.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vgmedgen.base import Bundle
from vgmedgen.dit import lora
from vgmedgen.dit.model import forget_origin
from vgmedgen.files import tree_digests, write_text
from vgmedgen.plan import Plan
from vgmedgen.release.card import card
from vgmedgen.release.verify import MANIFEST
from vgmedgen.training.rounds import Workbench

Weights = Mapping[str, Mapping[str, np.ndarray]]


def write(
    folder: Path, bundle: Bundle, plan: Plan, weights: Weights, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write adapter, HFFM, text mapper, model card and manifest below `folder`.

    Args:
        folder: is replaced when the release is whole.
        bundle: the base that the run trained on.
        plan: gives rank and targets of the LoRA.
        weights: both groups of the exchange.
        facts: what the manifest tells of the run; plain JSON.

    Returns:
        The manifest.
    """
    work = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    bench = Workbench.open(bundle, plan, torch.device("cpu"))
    bench.take(weights)
    lora.save_adapter(bench.generator, work / "adapter")
    forget_origin(bench.mapper)
    bench.mapper.save_pretrained(work / "text_mapper")
    lora.merge(bench.generator)
    bench.generator.hffm.save_pretrained(work / "hffm")
    told = {
        **facts,
        "base": bundle.digest,
        "image_px": bundle.image_px,
        "plan": plan.digest,
    }
    write_text(work / "README.md", card(told))
    manifest = {**told, "files": tree_digests(work, leave_out=frozenset({MANIFEST}))}
    write_text(work / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True))
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return manifest
