"""Turn pickled weights (.bin) into safetensors, once, without running code in them."""

import json
import pickle
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from vgmedgen.errors import BaseError
from vgmedgen.files import write_bytes, write_text

PICKLED = ("diffusion_pytorch_model", "pytorch_model")
NEW_STEM = {
    "diffusion_pytorch_model": "diffusion_pytorch_model",
    "pytorch_model": "model",
}


def convert(folder: Path) -> list[Path]:
    """Write a safetensors file beside every pickled one below `folder`.

    torch reads tensors only (`weights_only`), so that a file which would run code is
    refused. Files that are there already are left as they are.

    Returns:
        What was written.

    Raises:
        BaseError: if there is nothing to convert, or a file holds more than tensors.
        StateError: if the folder cannot be written.
    """
    if not folder.is_dir():
        raise BaseError(f"{folder} is no folder; name the one that holds the .bin file")
    pickled = [
        path for stem in PICKLED for path in sorted(folder.rglob(f"{stem}*.bin"))
    ]
    if not pickled:
        raise BaseError(
            f"{folder} holds no pickled weights ({PICKLED[1]}.bin); there is nothing to "
            "convert"
        )
    written = []
    for path in pickled:
        new = path.with_name(_renamed(path.name))
        if not new.exists():
            tensors = _tensors(path)
            write_bytes(new, save(tensors, metadata={"format": "pt"}))
            written.append(new)
    for stem in PICKLED:
        for index in sorted(folder.rglob(f"{stem}.bin.index*.json")):
            new = index.with_name(_renamed(index.name))
            if not new.exists():
                write_text(new, _index(index))
                written.append(new)
    return written


def _renamed(name: str) -> str:
    stem = next(stem for stem in PICKLED if name.startswith(stem))
    return NEW_STEM[stem] + name.removeprefix(stem).replace(".bin", ".safetensors")


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        reason = (
            str(error).strip().splitlines()[0] if str(error).strip() else "no reason"
        )
        raise BaseError(
            f"{path} is damaged, or holds more than tensors ({reason[:120]}); fetch it "
            "again, or use another copy of the model"
        ) from None
    if not isinstance(held, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor)
        for name, value in held.items()
    ):
        raise BaseError(f"{path} holds no table of tensors; it cannot be converted")
    # clones: weights that share memory, such as tied ones, cannot be written as they are
    return {name: value.contiguous().clone() for name, value in held.items()}


def _index(path: Path) -> str:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        listed = {name: _renamed(file) for name, file in index["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        raise BaseError(f"{path} is damaged; fetch it again") from None
    return json.dumps({**index, "weight_map": listed}, indent=2, sort_keys=True)
