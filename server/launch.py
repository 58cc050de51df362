"""What whoever starts a run hands to the server app: one file, named in its run config.

The server needs no model: the launcher, who holds the base bundle, writes the initial
weights and the schema beside the file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from server.weights import Weights, from_bytes, to_bytes
from vgmedgen.base import Bundle
from vgmedgen.config import load
from vgmedgen.config.run import RunConfig
from vgmedgen.errors import ConfigError, StateError
from vgmedgen.exchange.schema import ExchangeSchema
from vgmedgen.files import write_bytes, write_text

FOLDER = "launch"
FILE = "launch.json"
CONFIG = "config.yaml"
START = "start.safetensors"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Everything that a server needs to know of a run."""

    run: str  # id, as in every message
    folder: Path  # of the run; holds the registry
    config: RunConfig
    base: Path  # folder of the base bundle; only the release looks into it
    base_digest: str
    schema: ExchangeSchema
    sites: int = 0  # sites to wait for before round 1; 0 waits for min_sites only
    coordinator: str = ""  # public signing key; empty in a simulation
    nodes: Mapping[str, str] = field(default_factory=dict)  # site -> its node's public
    # key, hex; empty in a simulation: any node may then take any name

    @classmethod
    def prepare(
        cls,
        *,
        run: str,
        folder: Path,
        config: RunConfig,
        bundle: Bundle,
        weights: Weights,
        sites: int = 0,
        coordinator: str = "",
        nodes: Mapping[str, str] | None = None,
    ) -> Self:
        """Write everything a server needs below `folder`, and return it.

        Args:
            run: id, as in every message.
            folder: of the run.
            config: resolved.
            bundle: the base that the run trains on.
            weights: both groups as every site starts from them, float32.
            sites: to wait for before round 1.
            coordinator: public key that signs the run's messages; empty in a simulation.
            nodes: site -> public key of its node, hex; None in a simulation.

        Raises:
            StateError: if the disk is full or not writable.
        """
        launch = cls(
            run=run,
            folder=folder.resolve(),
            config=config,
            base=bundle.folder.resolve(),
            base_digest=bundle.digest,
            schema=ExchangeSchema.of(weights),
            sites=sites,
            coordinator=coordinator,
            nodes=nodes or {},
        )
        write_bytes(launch.path.with_name(START), to_bytes(weights))
        launch.save()
        return launch

    @property
    def path(self) -> Path:
        """The file that a server's run config names."""
        return self.folder / FOLDER / FILE

    def save(self) -> None:
        """Write the file and the configuration beside it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        load.save(self.config, self.path.with_name(CONFIG))
        facts = {
            "run": self.run,
            "base": str(self.base),
            "base-digest": self.base_digest,
            "schema": self.schema.to_json(),
            "sites": self.sites,
            "coordinator": self.coordinator,
            "nodes": dict(self.nodes),
        }
        write_text(self.path, json.dumps(facts, indent=2))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a launch file.

        Raises:
            StateError: if it is missing or damaged.
        """
        try:
            facts: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                run=str(facts["run"]),
                folder=path.parent.parent,
                config=load.load_file(path.with_name(CONFIG)),
                base=Path(str(facts["base"])),
                base_digest=str(facts["base-digest"]),
                schema=ExchangeSchema.from_json(str(facts["schema"])),
                sites=int(facts["sites"]),
                coordinator=str(facts["coordinator"]),
                nodes=dict(facts["nodes"]),
            )
        except (
            *(OSError, ValueError, KeyError, TypeError, RecursionError),
            ConfigError,
        ):
            raise StateError(
                f"{path} is not a readable launch file; start the run again"
            ) from None

    def start(self) -> dict[str, dict[str, np.ndarray]]:
        """The weights that every site starts from.

        Raises:
            StateError: if they are missing or damaged.
        """
        path = self.path.with_name(START)
        if not path.is_file():
            raise StateError(f"{path} is missing; start the run again")
        return from_bytes(path.read_bytes(), path)
