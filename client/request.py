"""What a message asks, as the site's own rules look at it."""

from collections.abc import Mapping
from dataclasses import dataclass

from vgmedgen.config.plan import RunPlan
from vgmedgen.exchange.wire import Kind


@dataclass(frozen=True, kw_only=True)
class Request:
    """A message whose words and plan are read."""

    kind: Kind
    words: Mapping[str, str]
    plan: RunPlan
    digest: str = ""  # of everything in the message

    @property
    def run(self) -> str:
        """Id of the run."""
        return self.words["run"]

    @property
    def number(self) -> int:
        """Round of the run, from 1; 0 in a hello."""
        return int(self.words.get("round", "0"))

    @property
    def turn(self) -> int:
        """Round within its stage, from 1; 0 in a hello."""
        return int(self.words.get("turn", "0"))

    @property
    def stage(self) -> str:
        """Stage of the round; empty in a hello."""
        return self.words.get("stage", "")
