"""LoRA on the generator: attach, exchange, merge. The only module that imports peft.

Factors have names of their own that no version of peft can change, such as
`dit.transformer_blocks.0.attn1.to_q.A`: A (rank, in) and B (out, rank) of a Linear
whose weight becomes W + alpha / rank * B A.
Source: Hu et al. 2021, arXiv 2106.09685.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import ModelMixin
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save
from torch import Tensor, nn

from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import ConfigError
from vgmedgen.files import write_bytes, write_text
from vgmedgen.models.generator import Generator, forget_origin

M = TypeVar("M", bound=ModelMixin)

ADAPTER = "default"  # peft's name for an adapter that nobody named
CONFIG_FILE = "adapter_config.json"  # peft's names of what it loads
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model"  # before a layer's name in that file


def attach(
    generator: Generator,
    rank: int,
    alpha: int,
    targets: Sequence[str],
    seed: int,
    *,
    hffm: bool = True,
) -> None:
    """Put LoRA on the DiT's `targets` and on every Linear of the HFFM; freeze the rest.

    A is drawn from the seed, so that every site starts from the same; B is zero, so
    that nothing changes before the first step.

    Args:
        generator: changed in place.
        rank: of every pair of factors.
        alpha: the update's scale is alpha / rank.
        targets: ends of the names of the DiT's Linear layers.
        seed: of A.
        hffm: False leaves the HFFM as the base has it.

    Raises:
        ConfigError: if a target names no Linear layer of the DiT.
    """
    linear, others = _split_targets(generator.transformer, targets)
    if missing := [target for target in targets if not linear[target]]:
        raise ConfigError(
            f"generate.targets: '{missing[0]}' names no linear layer of the DiT; use "
            "the ends of its layers' names, such as to_q or ff.net.2"
        )
    inner = [n for n, m in generator.hffm.named_modules() if isinstance(m, nn.Linear)]
    # peft initialises from torch's own generator, which others may be counting on
    with torch.random.fork_rng(devices=[]):
        generator.transformer = get_peft_model(
            generator.transformer, _config(rank, alpha, targets, others)
        )
        generator.hffm.requires_grad_(False)
        if hffm:
            generator.hffm = get_peft_model(
                generator.hffm, _config(rank, alpha, inner, others=[])
            )
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in parameters(generator).items():
            if name.endswith(".A"):
                bound = 1 / math.sqrt(weight.shape[1])  # as nn.Linear starts
                fresh = torch.empty(weight.shape).uniform_(
                    -bound, bound, generator=draw
                )
                weight.copy_(fresh)
            else:
                weight.zero_()


def attach_by_plan(generator: Generator, plan: RunPlan) -> None:
    """`attach` what every site of a run attaches."""
    ask = plan.generate
    attach(generator, ask.rank, ask.alpha, ask.targets, plan.seed, hffm=ask.hffm)


def parameters(generator: Generator) -> dict[str, nn.Parameter]:
    """Everything that trains, by canonical name, sorted."""
    found = {}
    parts = [("dit", _peft(generator.transformer))]
    if isinstance(generator.hffm, PeftModel):
        parts.append(("hffm", generator.hffm))
    for part, model in parts:
        for name, layer in model.get_base_model().named_modules():
            if isinstance(layer, LoraLayer):
                found[f"{part}.{name}.A"] = layer.lora_A[ADAPTER].weight
                found[f"{part}.{name}.B"] = layer.lora_B[ADAPTER].weight
    return dict(sorted(found.items()))


def state(generator: Generator) -> dict[str, Tensor]:
    """Copies of all factors by canonical name, sorted."""
    return {name: w.detach().clone() for name, w in parameters(generator).items()}


@torch.no_grad()
def load(generator: Generator, factors: Mapping[str, Tensor]) -> None:
    """Put in what `state` gave.

    Raises:
        ValueError: if a name is missing or unknown, or a shape is another; nothing has
            been changed then.
    """
    own = parameters(generator)
    if wrong := sorted(own.keys() ^ factors.keys()):
        what = "is missing" if wrong[0] in own else "is unknown"
        raise ValueError(f"{len(wrong)} LoRA names differ: {wrong[0]} {what}")
    for name, weight in own.items():
        if weight.shape != factors[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(factors[name].shape)}, expected "
                f"{tuple(weight.shape)}"
            )
    for name, weight in own.items():
        weight.copy_(factors[name])


def merge(generator: Generator) -> None:
    """Fold the factors into the base weights; the generator is a plain one again."""
    generator.transformer = _peft(generator.transformer).merge_and_unload()
    if isinstance(generator.hffm, PeftModel):
        generator.hffm = generator.hffm.merge_and_unload()


def save_adapter(generator: Generator, folder: Path) -> None:
    """Write the DiT's factors so that peft alone loads them onto the plain transformer.

    The same factors give the same bytes on every machine, whatever version peft has:
    the config holds only what it takes to load, in a fixed order.
    """
    _save(_peft(generator.transformer), folder)


def save_hffm_adapter(generator: Generator, folder: Path) -> bool:
    """Write the HFFM's factors as `save_adapter` does the DiT's.

    Returns:
        False, and nothing is written, where the HFFM stays as the base has it.
    """
    if not isinstance(generator.hffm, PeftModel):
        return False
    _save(generator.hffm, folder)
    return True


def file_names(generator: Generator, part: str) -> dict[str, str]:
    """Names that the factors of one part have in an adapter's file -> canonical names.

    Args:
        generator: with LoRA attached.
        part: dit or hffm.
    """
    found = {}
    for name in parameters(generator):
        if name.startswith(f"{part}."):
            layer, factor = name.removeprefix(f"{part}.").rsplit(".", 1)
            found[f"{_PREFIX}.{layer}.lora_{factor}.weight"] = name
    return found


def _save(model: PeftModel, folder: Path) -> None:
    config = model.peft_config[ADAPTER]
    told = {
        "alpha_pattern": {},
        "base_model_name_or_path": None,
        "bias": "none",
        "exclude_modules": sorted(config.exclude_modules or ()) or None,
        "inference_mode": True,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": config.r,
        "rank_pattern": {},
        "target_modules": sorted(config.target_modules),
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }
    factors = get_peft_model_state_dict(model)
    whole = {name: f.detach().cpu().contiguous() for name, f in factors.items()}
    write_bytes(folder / WEIGHTS_FILE, save(whole))
    write_text(folder / CONFIG_FILE, json.dumps(told, indent=2) + "\n")


def merge_adapter(model: M, folder: Path) -> M:
    """The plain transformer or HFFM with such a folder folded into its weights."""
    merged: M = PeftModel.from_pretrained(
        model, folder, torch_device=str(model.device)
    ).merge_and_unload()
    forget_origin(merged)
    return merged


@contextmanager
def disabled(generator: Generator) -> Iterator[None]:
    """Within it the generator answers as the base does."""
    with ExitStack() as stack:
        stack.enter_context(_peft(generator.transformer).disable_adapter())
        if isinstance(generator.hffm, PeftModel):
            stack.enter_context(generator.hffm.disable_adapter())
        yield


def _config(
    rank: int, alpha: int, targets: Sequence[str], others: Sequence[str]
) -> LoraConfig:
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(targets),
        exclude_modules=list(others) or None,
    )


def _split_targets(
    transformer: nn.Module, targets: Sequence[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Names of Linear layers per target, and of all else that the targets would hit."""
    linear: dict[str, list[str]] = {target: [] for target in targets}
    others = []
    for name, module in transformer.named_modules():
        for target in targets:
            if name == target or name.endswith(f".{target}"):
                if isinstance(module, nn.Linear):
                    linear[target].append(name)
                else:
                    others.append(name)
    return linear, sorted(set(others))


def _peft(model: Any) -> PeftModel:  # noqa: ANN401  # peft is untyped
    if not isinstance(model, PeftModel):
        raise ValueError("no LoRA is attached to the generator")  # noqa: TRY004
    return model
