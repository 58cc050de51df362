"""The whole of a run's configuration, as frozen dataclasses that check their ranges.

`vgmedgen.configfile` fills them from YAML. Units stand in the comment behind a field.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vgmedgen.errors import ConfigError

SMALLEST_PX = 32
MERGES = ("average", "alternate", "freeze_a", "svd", "median", "trimmed_mean")


def positive(section: str, **values: float) -> None:
    """Raise ConfigError unless every value is above 0 (NaN is refused too)."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{section}.{name} must be above 0, got {value}")


def within(section: str, low: float, high: float, **values: float) -> None:
    """Raise ConfigError unless every value lies in [low, high]."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ConfigError(
                f"{section}.{name} must lie in [{low:g}, {high:g}], got {value}"
            )


def one_of(section: str, allowed: Sequence[str], **values: str) -> None:
    """Raise ConfigError unless every value is one of `allowed`."""
    for name, value in values.items():
        if value not in allowed:
            raise ConfigError(
                f"{section}.{name} must be one of {', '.join(allowed)}, got '{value}'"
            )


@dataclass(frozen=True, kw_only=True)
class Source:
    """One dataset folder that virtual sites are made from."""

    name: str = ""  # site name where a source is a site; else a label
    dataset: str = "phantom"  # adapter: ham10000, busi, kvasir-seg, table, phantom
    folder: str = "."  # below data.root
    modality: str = ""  # phantom only: dermoscopy, ultrasound, endoscopy


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from and how virtual sites share them."""

    root: str = ""  # folder that holds the sources; empty for phantoms
    sources: list[Source] = field(default_factory=list)
    captions: str = ""  # csv (image, caption) that replaces the captions made here
    split: str = "source"  # source | column | dirichlet
    column: str = "dataset"  # fact to split by, where split is column
    sites: int = 3  # virtual sites, where split is dirichlet
    alpha: float = 0.5  # Dirichlet concentration over labels; smaller is more uneven
    phantoms: int = 96  # images per phantom source
    heldout: float = 0.2  # share of each site's units that never trains

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("data", ("source", "column", "dirichlet"), split=self.split)
        positive("data", sites=self.sites, alpha=self.alpha, phantoms=self.phantoms)
        within("data", 0.05, 0.5, heldout=self.heldout)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of every part; they are fixed when a base bundle is built.

    Letters as in the design: A anatomy width, S style width, D caption width of the DiT.
    """

    preset: str = "tiny"
    image_px: int = 64  # side of the square images
    source: str = (
        ""  # folder or hub id of a pretrained PixArt pipeline; empty: made here
    )
    text_source: str = ""  # folder or hub id of a pretrained BERT; empty: made here
    # one entry per halving, plus one: at 64 px a latent of 8 px could not hold a border
    vae_channels: tuple[int, ...] = (24, 48, 96)
    vae_layers: int = 1  # residual blocks per resolution
    prior_channels: tuple[int, ...] = (16, 32, 48, 64)  # MONAI U-Net widths
    maps: int = 8  # K, anatomy channels
    pooling: str = "grid"  # grid keeps where and what shape; area is the ablation
    grid: int = 8  # side of the grid that the maps are pooled to
    anatomy: int = 64  # A
    style: int = 64  # S
    text_width: int = 128  # E of the text encoder made here
    text_layers: int = 2
    max_tokens: int = 96  # word pieces per caption
    mapper_hidden: int = 512
    hffm_hidden: int = 256
    tokens_per_channel: int = 4  # conditioning tokens made of each vector
    dit_layers: int = 4
    dit_heads: int = 4
    dit_head_width: int = 32
    dit_patch: int = 2  # latent pixels per token side
    caption_width: int = 128  # D

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("model", ("grid", "area"), pooling=self.pooling)
        positive(
            "model",
            maps=self.maps,
            anatomy=self.anatomy,
            style=self.style,
            tokens_per_channel=self.tokens_per_channel,
            max_tokens=self.max_tokens,
            dit_layers=self.dit_layers,
        )
        if self.image_px < SMALLEST_PX or self.image_px % 16:
            raise ConfigError(
                f"model.image_px must be a multiple of 16 from {SMALLEST_PX}, "
                f"got {self.image_px}"
            )


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """How a base bundle is built; nothing here touches a hospital's image."""

    folder: str = ""  # an existing bundle; empty: built once into the cache
    seed: int = 0  # of the build; the run's own seed leaves the base alone
    phantoms: int = 2100  # public images drawn for it
    batch: int = 32
    vae_steps: int = 700
    prior_steps: int = 200
    mapper_steps: int = 500
    dit_steps: int = 1100
    min_snr: float = (
        5.0  # gamma: holds back the steps with little noise, where texture is
    )
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        """Check ranges."""
        positive(
            "base",
            phantoms=self.phantoms,
            batch=self.batch,
            learning_rate=self.learning_rate,
        )


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Stage `align`: the visual prior, then the text mapper against it."""

    prior_steps: int = 40  # optimiser steps per round
    mapper_steps: int = 120
    batch: int = 16  # images
    prior_rate: float = 5e-4  # learning rate
    mapper_rate: float = 1e-3
    common_start: bool = True  # every site starts from the prior in the base bundle
    anchor: float = 1.0  # weight of the pull to the global mapper; 0 switches it off
    decoder: float = 0.5  # weight of the mapper's caption reconstruction

    def __post_init__(self) -> None:
        """Check ranges."""
        positive(
            "align",
            prior_steps=self.prior_steps,
            mapper_steps=self.mapper_steps,
            batch=self.batch,
            prior_rate=self.prior_rate,
            mapper_rate=self.mapper_rate,
        )
        within("align", 0, 100, anchor=self.anchor, decoder=self.decoder)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Stage `generate`: LoRA on HFFM and DiT by denoising."""

    steps: int = 120  # optimiser steps per round
    batch: int = 16  # images
    learning_rate: float = 5e-3  # for bases built here; a pretrained PixArt wants 1e-4
    dropout: float = 0.1  # share of captions dropped, so that guidance has two branches
    min_snr: float = 0.0  # gamma of min-SNR weighting; 0 leaves the loss unweighted
    colour_every: int = 0  # steps between colour losses; 0 never
    colour_weight: float = 0.05
    rank: int = 8  # LoRA rank, equal at every site
    alpha: int = 8  # LoRA scale is alpha / rank
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self) -> None:
        """Check ranges."""
        positive(
            "generate",
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            rank=self.rank,
            alpha=self.alpha,
        )
        within("generate", 0, 0.9, dropout=self.dropout)
        within(
            "generate", 0, 1000, min_snr=self.min_snr, colour_every=self.colour_every
        )
        if not self.targets:
            raise ConfigError("generate.targets must name at least one layer")


@dataclass(frozen=True, kw_only=True)
class FederationConfig:
    """Rounds, waits and how updates are merged."""

    align_rounds: int = 2
    generate_rounds: int = 3
    merge: str = (
        "average"  # average | alternate | freeze_a | svd | median | trimmed_mean
    )
    weighting: str = "units"  # units | uniform
    min_sites: int = 2  # sites without which a round does not count
    wait_s: float = 120.0  # seconds to wait for min_sites to be there
    round_timeout_s: float = 3600.0  # seconds a site has for one round
    evaluate: bool = True  # ask the sites for their held-out loss after generate rounds

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("federation", MERGES, merge=self.merge)
        one_of("federation", ("units", "uniform"), weighting=self.weighting)
        positive(
            "federation",
            min_sites=self.min_sites,
            wait_s=self.wait_s,
            round_timeout_s=self.round_timeout_s,
        )
        within("federation", 1, 10_000, align_rounds=self.align_rounds)
        within("federation", 1, 10_000, generate_rounds=self.generate_rounds)

    @property
    def rounds(self) -> int:
        """Number of rounds of both stages."""
        return self.align_rounds + self.generate_rounds

    def stage(self, number: int) -> str:
        """Stage of round `number`, which counts from 1."""
        return "align" if number <= self.align_rounds else "generate"

    def turn(self, number: int) -> int:
        """Place of round `number` within its stage, from 1."""
        return number if number <= self.align_rounds else number - self.align_rounds


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """How images are drawn."""

    images: int = 12  # per site, one per caption
    steps: int = 25  # denoising steps
    guidance: float = 2.0
    batch: int = 16

    def __post_init__(self) -> None:
        """Check ranges."""
        positive("synthesis", images=self.images, steps=self.steps, batch=self.batch)
        within("synthesis", 1, 30, guidance=self.guidance)


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a simulation compares the federated model with."""

    local: bool = False  # train each site alone, as long as the federation
    pooled: bool = False  # train on all sites' images in one place
    alignment: bool = False  # rerun the align rounds without anchor, common start
    shuffles: int = 5  # caption shuffles behind the spread of the caption gap
    draws: int = 8  # timesteps per held-out image

    def __post_init__(self) -> None:
        """Check ranges."""
        positive("study", shuffles=self.shuffles, draws=self.draws)


@dataclass(frozen=True, kw_only=True)
class RunSection:
    """Where and on what a run works; none of it changes the result it should reach."""

    dir: str = ""  # folder of the run; empty: runs/<experiment>
    engine: str = "inproc"  # inproc | ray
    device: str = "auto"  # auto | cpu | cuda
    threads: int = 0  # torch threads per process; 0 leaves torch's choice

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("run", ("inproc", "ray"), engine=self.engine)
        one_of("run", ("auto", "cpu", "cuda"), device=self.device)
        within("run", 0, 1024, threads=self.threads)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One federated run, whole."""

    experiment: str = "demo"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    run: RunSection = field(default_factory=RunSection)

    @property
    def digest(self) -> str:
        """Hash of all but `run`, which cannot change the result."""
        facts = asdict(self)
        del facts["run"]
        return digest_of(facts)

    @property
    def plan(self) -> "Plan":
        """The part of the run that travels to the sites."""
        return Plan(
            seed=self.seed,
            merge=self.federation.merge,
            align=self.align,
            generate=self.generate,
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run asks every site to do; the only configuration in a message."""

    seed: int = 0
    merge: str = "average"  # decides which LoRA factor trains in a round
    align: AlignConfig = field(default_factory=AlignConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("federation", MERGES, merge=self.merge)

    @property
    def digest(self) -> str:
        """Hash of the plan; a site names it beside everything it stores."""
        return digest_of(asdict(self))

    def to_json(self) -> str:
        """The plan as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def digest_of(facts: Mapping[str, Any]) -> str:
    """sha256 of `facts` as canonical JSON, in hexadecimal."""
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()
