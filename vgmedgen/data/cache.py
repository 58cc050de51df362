"""A private folder of tensors, one safetensors file per key.

A key names content (a digest), never a patient: what is stored under a key never changes,
so nothing here needs to be invalidated.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from vgmedgen.files import write_bytes


class Cache:
    """Tensors and a few words by key, in a folder that only the site reads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def put(
        self, key: str, tensors: Mapping[str, Tensor], words: Mapping[str, str]
    ) -> None:
        """Store `tensors` and `words` under `key`, whole or not at all."""
        content = safetensors.torch.save(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            {"words": json.dumps(dict(words))},
        )
        write_bytes(self._path(key), content)

    def get(self, key: str, *names: str) -> dict[str, Tensor]:
        """Read the named tensors of `key`; the others stay on disk."""
        with safetensors.safe_open(self._path(key), framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in names}

    def words(self, key: str) -> dict[str, str]:
        """Read the words stored beside the tensors of `key`."""
        with safetensors.safe_open(self._path(key), framework="pt") as stored:
            found: dict[str, str] = json.loads(stored.metadata()["words"])
            return found
