"""What the server remembers of a run: weights and a record after every round.

```text
<run>/registry.json             which run this is; another one is refused
<run>/rounds/0000.safetensors   what every site started from
<run>/rounds/0001.safetensors   weights after round 1
<run>/rounds/0001.json          who took part, who was left out and why, bytes, losses
<run>/installed.json            which site installed which release
```

Every file is written whole or not at all, a round's record after its weights: a round
without a record never happened.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from server.weights import Weights, from_bytes, to_bytes
from vgmedgen.errors import StateError
from vgmedgen.files import write_bytes, write_text


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round, as the report tells it; keys of every mapping are site names."""

    number: int
    stage: str
    counted: bool  # enough sites answered; else the weights stayed as they were
    sites: list[str]  # whose updates were merged, or would have been
    left_out: dict[str, str]  # site -> code
    seconds: float
    bounded: dict[str, float] = field(
        default_factory=dict
    )  # held to the bound: size of the update over the other sites' median
    units: dict[str, int] = field(default_factory=dict)
    loss: dict[str, float] = field(
        default_factory=dict
    )  # mean over units; none under DP
    epsilon: dict[str, float] = field(default_factory=dict)  # spent by then, all runs
    heldout_loss: dict[str, float] = field(default_factory=dict)
    heldout_units: dict[str, int] = field(default_factory=dict)
    heldout_left_out: dict[str, str] = field(default_factory=dict)
    bytes_to: dict[str, int] = field(default_factory=dict)
    bytes_from: dict[str, int] = field(default_factory=dict)


_RECORDED = {entry.name for entry in fields(RoundRecord)} | {"weights"}


class Registry:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def run(self) -> str:
        """Id of the run.

        Raises:
            StateError: if the folder holds none.
        """
        return str(self._facts()["run"])

    def open(self, facts: Mapping[str, str], start: Weights) -> None:
        """Claim the folder for a run, or go on with the one that it holds.

        Args:
            facts: what must be equal to go on: run, config, base, exchange.
            start: weights before round 1; those of an earlier start stay.

        Raises:
            StateError: if the folder holds another run; it stays as it is.
        """
        path = self.folder / "registry.json"
        if path.is_file():
            held = self._facts()
            for name, value in facts.items():
                if held.get(name) != value:
                    raise StateError(
                        f"{self.folder} holds another run: its {name} is "
                        f"{str(held.get(name))[:24]}, this run's is {value[:24]}; "
                        "choose another folder, or start with the configuration it was "
                        "made by"
                    )
        if not self._weights_path(0).is_file():
            write_bytes(self._weights_path(0), to_bytes(start))
        if not path.is_file():
            write_text(path, json.dumps(dict(facts), indent=2))

    def write(self, record: RoundRecord, weights: Weights) -> None:
        """Keep a round.

        Raises:
            StateError: if the disk is full or not writable; earlier rounds are intact.
        """
        content = to_bytes(weights)
        write_bytes(self._weights_path(record.number), content)
        told = asdict(record) | {"weights": hashlib.sha256(content).hexdigest()}
        write_text(self._record_path(record.number), json.dumps(told, indent=2))

    def last_complete(self) -> int:
        """Number of the last round that is whole; 0 before the first."""
        number = 0
        while self._record_path(number + 1).is_file():
            number += 1
        return number

    def weights(self, number: int) -> dict[str, dict[str, np.ndarray]]:
        """Weights after a round; 0 is what every site started from.

        Raises:
            StateError: if the file is missing or not what was written.
        """
        path = self._weights_path(number)
        if not path.is_file():
            raise StateError(f"{path} is missing; restore it from a copy")
        content = path.read_bytes()
        if number:
            told = self._record(number).get("weights")
            if hashlib.sha256(content).hexdigest() != told:
                raise StateError(
                    f"{path} is not what round {number} wrote; restore it from a copy, "
                    f"or delete rounds {number} and later to go on from {number - 1}"
                )
        return from_bytes(content, path)

    def rounds(self) -> list[dict[str, Any]]:
        """The record of every round, as in `RoundRecord`, plain JSON values."""
        return [self._record(n) for n in range(1, self.last_complete() + 1)]

    def installed(self, release: str, sites: Mapping[str, str]) -> None:
        """Keep which site installed which release, or the code of why it did not."""
        told = {"manifest": release, "sites": dict(sites)}
        write_text(self.folder / "installed.json", json.dumps(told, indent=2))

    def _facts(self) -> dict[str, Any]:
        return _read(self.folder / "registry.json")

    def _record(self, number: int) -> dict[str, Any]:
        path = self._record_path(number)
        told = _read(path)
        if told.keys() != _RECORDED or told["number"] != number:
            raise StateError(
                f"{path} is damaged: it is not the record of round {number}; restore it "
                f"from a copy, or delete rounds {number} and later to go on from "
                f"{number - 1}"
            )
        return told

    def _weights_path(self, number: int) -> Path:
        return self.folder / "rounds" / f"{number:04d}.safetensors"

    def _record_path(self, number: int) -> Path:
        return self.folder / "rounds" / f"{number:04d}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = None
    if not isinstance(told, dict):
        raise StateError(f"{path} is missing or damaged; restore it from a copy")
    return told
