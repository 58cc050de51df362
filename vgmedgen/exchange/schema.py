"""The exchange schema: the only tensors, numbers and words that may cross the wall.

Nothing else decides what may leave. `client.egress` enforces it on the way out,
`server.replies` on the way in. Each side builds the list of tensors from its own base
bundle and they compare digests: a site never takes the list from the server.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from vgmedgen.config.ranges import digest_of
from vgmedgen.errors import ExchangeError

PROTOCOL = "5"  # version of the messages; both sides must have the same
SITE_ERROR = 100  # Flower error code of a reply that carries one of our codes as reason
CODE = "VG[0-9]{2}"  # form of an error code, the only thing an error may say
DTYPE = "float16"  # of every tensor on the wire

GROUPS = ("mapper", "lora")
STAGES = ("align", "generate")
UPLINK: Mapping[str, tuple[str, ...]] = {"align": ("mapper",), "generate": ("lora",)}
DOWNLINK = GROUPS

NUMBERS = ("num-units", "loss-sum", "epsilon-spent")
PRIVATE_NUMBERS = (
    "num-units",
    "epsilon-spent",
)  # under DP no loss leaves, noised or not
LIMITS: Mapping[str, float] = {
    "num-units": 1_000_000,  # a site that claims more would drown all others
    "loss-sum": 1e9,
    "epsilon-spent": 1_000,
}

_DIGEST = "[0-9a-f]{64}"
WORDS: Mapping[str, str] = {
    "protocol": "[0-9]{1,4}",
    "run": "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "round": "[0-9]{1,5}",
    "turn": "[0-9]{1,5}",
    "stage": "align|generate",
    "site": "[a-z0-9-]{1,40}",
    "base": _DIGEST,
    "exchange": _DIGEST,
    "release": _DIGEST,
    "ledger": "[0-9]{1,9}-[0-9a-f]{32}",  # how far the site's ledger has come
    "plan": r"\{[ -~]{0,8000}\}",
    "plan-digest": _DIGEST,
    "manifest": r"\{[ -~\n]{0,1000000}\}",
    "release-signature": r"(\{[ -~]{0,598}\})?",  # JSON; empty where nobody signs
    "coordinator": f"({_DIGEST})?",  # public signing key; empty where nobody signs
    "signature": "([0-9a-f]{128})?",
    "version": "[0-9A-Za-z.+-]{1,40}",  # of this package
}

_NAME = re.compile("[A-Za-z0-9_]+(\\.[A-Za-z0-9_]+)*")
_LONGEST_NAME = 200  # characters
_MOST_DIMENSIONS = 8


def numbers_of(withheld: bool) -> tuple[str, ...]:
    """The numbers of a reply to a train order.

    Args:
        withheld: whether losses stay at the site: always under differential privacy, and
            wherever the site's policy says so.
    """
    return PRIVATE_NUMBERS if withheld else NUMBERS


class Shaped(Protocol):
    """A tensor or an array, as far as the schema looks at it."""

    @property
    def shape(self) -> Sequence[int]:
        """Length of every side."""
        ...


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One tensor that may cross: its canonical name and its exact shape."""

    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that the name is canonical and the shape one of a real tensor."""
        if not _NAME.fullmatch(self.name) or len(self.name) > _LONGEST_NAME:
            raise ExchangeError(f"'{self.name[:60]}' is not a canonical tensor name")
        whole = all(isinstance(side, int) and side > 0 for side in self.shape)
        if not whole or len(self.shape) > _MOST_DIMENSIONS:
            raise ExchangeError(f"tensor {self.name} cannot have shape {self.shape}")

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


Specs = tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ExchangeSchema:
    """The exact tensors of both groups, sorted by name."""

    groups: Mapping[str, Specs]

    def __post_init__(self) -> None:
        """Check that both groups are there, not empty, each tensor once and sorted."""
        if set(self.groups) != set(GROUPS):
            raise ExchangeError(
                f"an exchange schema has the groups {', '.join(GROUPS)}, "
                f"got {', '.join(sorted(self.groups)) or 'none'}"
            )
        for group, specs in self.groups.items():
            names = [spec.name for spec in specs]
            if not names or names != sorted(set(names)):
                raise ExchangeError(
                    f"group {group} must list at least one tensor, each once, by name"
                )

    @classmethod
    def of(cls, states: Mapping[str, Mapping[str, Shaped]]) -> "ExchangeSchema":
        """The schema of a model's two groups.

        Args:
            states: group -> canonical name -> tensor or array.

        Raises:
            ExchangeError: if a group is missing, unknown or empty.
        """
        return cls(
            {
                group: tuple(
                    TensorSpec(
                        name=name, shape=tuple(int(n) for n in state[name].shape)
                    )
                    for name in sorted(state)
                )
                for group, state in states.items()
            }
        )

    @property
    def digest(self) -> str:
        """Hash that both sides compare before round 1, in hexadecimal."""
        return digest_of(
            {
                "protocol": PROTOCOL,
                "dtype": DTYPE,
                "numbers": list(NUMBERS),
                "private-numbers": list(PRIVATE_NUMBERS),
                "groups": self._facts(),
            }
        )

    def size(self, group: str) -> int:
        """Number of values in a group."""
        return sum(spec.size for spec in self.groups[group])

    def down(self) -> dict[str, Specs]:
        """What an order carries: both groups, whole."""
        return {group: self.groups[group] for group in DOWNLINK}

    def up(self, stage: str, factor: str | None = None) -> dict[str, Specs]:
        """What a reply to a train order carries.

        Args:
            stage: align or generate.
            factor: `A` or `B` if only one LoRA factor trains; the other, which nobody
                changed, stays at home and halves the bytes. The mapper has no factors.
        """
        return {
            group: tuple(
                spec
                for spec in self.groups[group]
                if factor is None or group != "lora" or spec.name.endswith(f".{factor}")
            )
            for group in UPLINK[stage]
        }

    def to_json(self) -> str:
        """The schema as JSON; `from_json` reads it back equal."""
        return json.dumps(self._facts())

    @classmethod
    def from_json(cls, text: str) -> "ExchangeSchema":
        """Read what `to_json` wrote.

        Raises:
            ExchangeError: if it is not a schema.
        """
        try:
            groups = {
                str(group): tuple(
                    TensorSpec(name=str(name), shape=tuple(shape))
                    for name, shape in specs
                )
                for group, specs in json.loads(text).items()
            }
        except (ValueError, TypeError, AttributeError):
            raise ExchangeError("the exchange schema is not readable JSON") from None
        return cls(groups)

    def _facts(self) -> dict[str, list[list[Any]]]:
        return {
            group: [[spec.name, list(spec.shape)] for spec in self.groups[group]]
            for group in GROUPS
        }
