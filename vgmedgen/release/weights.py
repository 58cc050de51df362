"""Read a release's tensors back as what the run exchanged, and as nothing else."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load

from vgmedgen.base import Bundle
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import ExchangeError, ReleaseError
from vgmedgen.exchange.payload import on_wire
from vgmedgen.exchange.schema import ExchangeSchema
from vgmedgen.models import lora
from vgmedgen.training.rounds import Workbench

Weights = Mapping[str, Mapping[str, np.ndarray]]

ADAPTER = "adapter"
HFFM_ADAPTER = "hffm_adapter"
TEXT_MAPPER = "text_mapper"
MAPPER_FILE = "diffusion_pytorch_model.safetensors"  # diffusers' name of what it loads


def weights_of(
    folder: Path, bundle: Bundle, plan: RunPlan, bench: Workbench | None = None
) -> Weights:
    """Both groups of the exchange, from the tensor files of a release.

    No config file of the release is looked at: names and shapes are those of the site's
    own base and of the plan.

    Args:
        folder: the release.
        bundle: the base that it was made for.
        plan: of its run.
        bench: models of that base and plan, if they are loaded already.

    Raises:
        ReleaseError: for a name, shape or type that the exchange schema does not list, or
            a value that a run cannot have exchanged.
    """
    bench = bench or Workbench.open(bundle, plan, torch.device("cpu"))
    factors: dict[str, np.ndarray] = {}
    parts = {ADAPTER: "dit", HFFM_ADAPTER: "hffm"}
    for part, model in parts.items():
        names = lora.file_names(bench.generator, model)
        path = folder / part / lora.WEIGHTS_FILE
        if names:
            held = _tensors(path, set(names))
            factors |= {own: held[name] for name, own in names.items()}
        elif path.parent.exists():
            raise _unfit(path, "the run of this release trained no such part")
    path = folder / TEXT_MAPPER / MAPPER_FILE
    held = _tensors(path, set(bench.mapper.state_dict()))
    mapper = {name: held[name] for name in bench.mapper.shared_state()}
    found = {"mapper": mapper, "lora": factors}
    return _as_exchanged(folder, found, ExchangeSchema.of(bench.states()))


def _tensors(path: Path, names: set[str]) -> dict[str, np.ndarray]:
    """The tensors of one file, which must have exactly these names."""
    try:
        held: dict[str, np.ndarray] = load(path.read_bytes())
    except FileNotFoundError:
        raise _unfit(path, "it is missing") from None
    except (SafetensorError, KeyError, TypeError, ValueError):
        raise _unfit(path, "it is no safetensors file") from None
    if wrong := sorted(names ^ set(held)):
        what = "is missing" if wrong[0] in names else "is unknown"
        raise _unfit(path, f"tensor {wrong[0][:100]!r} {what}")
    return held


def _as_exchanged(folder: Path, found: Weights, schema: ExchangeSchema) -> Weights:
    """The same weights, once they are what float16 messages of the schema can carry."""
    for group, specs in schema.groups.items():
        try:
            sent = on_wire(found[group], specs)
        except ExchangeError as error:
            raise _unfit(folder, str(error)) from None
        for name, array in sent.items():
            held = found[group][name]
            if held.dtype != np.float32 or not np.array_equal(held, array):
                raise _unfit(folder, f"{name} holds values that no run exchanges")
    return found


def _unfit(path: Path, why: str) -> ReleaseError:
    return ReleaseError(f"{path} is no part of a release: {why}; fetch it again")
