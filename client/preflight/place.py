"""The folder that is examined, read as far as it can be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgmedgen.config.load import fill
from vgmedgen.config.yamlfile import read_yaml
from vgmedgen.site.config import FILE, Coordinator, Policy

if TYPE_CHECKING:  # brings torch, which `start` does not wait for
    from vgmedgen.data.inspection import Inspection
    from vgmedgen.data.records import Dataset
    from vgmedgen.site.folder import Site


@dataclass
class Place:
    """A site's folder; a fault in one section of site.yaml hides no other."""

    folder: Path
    quick: bool = False
    datasets: list["Dataset"] = field(default_factory=list)  # as the adapters read them
    inspected: list["Inspection"] = field(default_factory=list)  # each of their images

    @cached_property
    def sections(self) -> Mapping[str, Any]:
        """What site.yaml holds, unchecked; nothing where it is no YAML."""
        try:
            found = read_yaml(self.folder / FILE)
        except Exception:  # noqa: BLE001 - the examination of site.yaml says what it is
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def coordinator(self) -> Coordinator:
        """How to get at the coordinator.

        Raises:
            ConfigError: if that section has an unknown key or no words.
        """
        return fill(Coordinator, [self.sections.get("coordinator") or {}])

    @property
    def policy(self) -> Policy:
        """The site's own limits.

        Raises:
            ConfigError: if that section has an unknown key or a value out of range.
        """
        return fill(Policy, [self.sections.get("policy") or {}])

    @property
    def ca(self) -> Path:
        """The CA's certificate."""
        return self.folder / self.coordinator.ca

    @property
    def key(self) -> Path:
        """The node's private key."""
        return self.folder / self.coordinator.key

    @cached_property
    def site(self) -> "Site":
        """The whole site.

        Raises:
            ConfigError: if site.yaml is not valid.
        """
        from vgmedgen.site.folder import Site  # noqa: PLC0415 - brings torch

        return Site(self.folder)
