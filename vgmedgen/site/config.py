"""What `site.yaml` says: a hospital's data, its coordinator, and its own limits.

Only the hospital writes the file. Nothing that a run asks for can loosen what is here.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from vgmedgen.config.load import load
from vgmedgen.config.plan import MOST_DELTA, MOST_EPSILON
from vgmedgen.config.ranges import one_of, positive, within
from vgmedgen.config.yamlfile import read_yaml
from vgmedgen.errors import ConfigError

FILE = "site.yaml"
STAGES = ("align", "generate")
MOST_WORSE = 10.0  # a share of a loss; whoever wants more wants no comparison
_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")


@dataclass(frozen=True, kw_only=True)
class SiteSource:
    """One dataset at a site."""

    dataset: str = "table"  # adapter: ham10000, busi, kvasir-seg, table
    root: str = ""  # folder of the dataset, or the csv of a table
    captions: str = ""  # csv that replaces captions
    grouping: str = ""  # csv that joins units: which images are of one patient
    units: list[str] | None = None  # only these units; None takes all


@dataclass(frozen=True, kw_only=True)
class SitePrivacy:
    """How much privacy this hospital lets its patients lose, over all runs."""

    epsilon: float = 0.0  # limit per unit; 0: no run with DP, and no bound without
    delta: float = 1e-5  # at which epsilon is counted

    def __post_init__(self) -> None:
        """Check ranges."""
        within("site privacy", 0, MOST_EPSILON, epsilon=self.epsilon)
        positive("site privacy", delta=self.delta)
        within("site privacy", 0, MOST_DELTA, delta=self.delta)


@dataclass(frozen=True, kw_only=True)
class Coordinator:
    """Where the coordinator is, and how this site proves who it is.

    Files are relative to the folder of `site.yaml`.
    """

    address: str = ""  # host:port; empty at a site that no node serves
    ca: str = "ca.crt"  # certificate that the server's has to chain to
    key: str = "node.key"  # this site's private EC key, OpenSSH form, mode 0600


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What this hospital lets a run do; every limit holds beside the run's own."""

    coordinators: list[str] = field(default_factory=list)  # release-signing keys, hex;
    # only their runs are served; empty: unsigned runs too, which no node accepts
    runs: list[str] = field(default_factory=lambda: ["*"])  # patterns of run ids
    stages: list[str] = field(default_factory=lambda: list(STAGES))
    approval: str = "none"  # required: a run waits for `vgmedgen-client approve`
    dry_run: bool = False  # train and show what would leave; send nothing
    metrics: bool = True  # whether losses may leave; under DP they never do
    dp: str = "optional"  # required | optional | refused
    epsilon_per_run: float = MOST_EPSILON  # the total is privacy.epsilon
    min_units: int = 1  # units below which nothing trains here
    min_heldout: int = 1  # held-out units below which no held-out loss leaves
    min_batch: int = 1  # images of a step without DP; few show single patients
    rounds_per_run: int = 1000
    rounds_per_day: int = 1000  # days of the site's own clock
    steps_per_round: int = 100_000  # optimiser steps, of every training of the round
    learning_rate: float = 0.1  # the highest that a run may ask for
    exchange: str = ""  # digest of the exchange schema; empty: the one of this base
    hours: str = ""  # such as 20:00-06:00, local time; empty: always
    worse_by: float = 0.1  # share by which a release's held-out loss here may be above
    # the base's and that of the one in use, or it is not used; 0: not compared
    ungated: bool = False  # synthetic images that no gate compared may be kept
    identified_dicom: bool = False  # DICOM files that name a patient may train

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("policy", ("none", "required"), approval=self.approval)
        one_of("policy", ("required", "optional", "refused"), dp=self.dp)
        for stage in self.stages:
            one_of("policy", STAGES, stages=stage)
        for key in self.coordinators:
            if not re.fullmatch("[0-9a-f]{64}", key):
                raise ConfigError(
                    f"policy.coordinators: '{key[:70]}' is not a signing key; copy the "
                    "64 hexadecimal digits from coordinator.pub"
                )
        if self.exchange and not re.fullmatch("[0-9a-f]{64}", self.exchange):
            raise ConfigError("policy.exchange must be 64 hexadecimal digits or empty")
        if self.hours and not _HOURS.fullmatch(self.hours):
            raise ConfigError(
                f"policy.hours must look like 20:00-06:00, got '{self.hours}'"
            )
        within("policy", 0, MOST_WORSE, worse_by=self.worse_by)
        positive(
            "policy",
            epsilon_per_run=self.epsilon_per_run,
            min_units=self.min_units,
            min_heldout=self.min_heldout,
            min_batch=self.min_batch,
            rounds_per_run=self.rounds_per_run,
            rounds_per_day=self.rounds_per_day,
            steps_per_round=self.steps_per_round,
            learning_rate=self.learning_rate,
        )


@dataclass(frozen=True, kw_only=True)
class SiteGate:
    """How synthetic images are compared with this hospital's own."""

    false_alarms: float = 0.01  # share of images that are no copies, yet are held back
    features: str = "base"  # what the base sees in an image; or a vision model's folder

    def __post_init__(self) -> None:
        """Check ranges."""
        within("gate", 0.0005, 0.2, false_alarms=self.false_alarms)


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """What `site.yaml` says; only the hospital writes it."""

    name: str = ""  # pseudonym in every reply: lower case, digits, hyphens
    base: str = ""  # folder of the base bundle, seen from that of site.yaml
    base_digest: str = ""  # digest that it must have; empty: whatever is there
    sources: list[SiteSource] = field(default_factory=list)
    heldout: float = 0.2  # share of the units that never trains
    heldout_seed: int = 0
    heldout_units: list[str] | None = None  # exactly these units instead
    privacy: SitePrivacy = field(default_factory=SitePrivacy)
    policy: Policy = field(default_factory=Policy)
    coordinator: Coordinator = field(default_factory=Coordinator)
    gate: SiteGate = field(default_factory=SiteGate)
    device: str = "auto"  # auto | cpu | cuda

    def __post_init__(self) -> None:
        """Check what can be checked without opening data."""
        if not re.fullmatch("[a-z0-9-]{1,40}", self.name):
            raise ConfigError(
                f"site name '{self.name[:60]}' must be at most 40 lower-case letters, "
                "digits and hyphens"
            )
        within("site", 0.05, 0.5, heldout=self.heldout)
        if not self.sources:
            raise ConfigError("site.yaml names no data; add an entry under sources")


def keys_of(path: Path) -> frozenset[str]:
    """Every key that a site.yaml sets, with those above it: `policy`, `policy.hours`."""
    found: set[str] = set()

    def walk(value: object, prefix: str) -> None:
        if isinstance(value, dict):
            for name, below in value.items():
                found.add(f"{prefix}{name}")
                walk(below, f"{prefix}{name}.")

    walk(read_yaml(path), "")
    return frozenset(found)


def load_config(path: Path) -> SiteConfig:
    """Read `site.yaml`.

    Raises:
        ConfigError: if it is missing, has an unknown key or a value out of range.
    """
    if not path.is_file():
        raise ConfigError(f"there is no {path}; a site's folder needs a site.yaml")
    return load(SiteConfig, path)
