"""The whole of a run's configuration, as frozen dataclasses that check their ranges.

`vgmedgen.config.load` fills them from YAML. Units stand in the comment behind a field.
"""

from dataclasses import asdict, dataclass, field

from vgmedgen.config.plan import (
    MERGES,
    AlignConfig,
    GenerateConfig,
    PrivacyConfig,
    RunPlan,
)
from vgmedgen.config.ranges import digest_of, one_of, positive, within
from vgmedgen.errors import ConfigError

SMALLEST_PX = 32
DRAWING_STEPS = 25  # of the solver, by default
GUIDANCE = 1.5  # by default: what a prompt says is exaggerated a little
PREDICTS = ("epsilon", "v_prediction")  # as diffusers names them: noise, or velocity


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
    grouping: str = ""  # csv (image, unit) that joins units of one patient or picture
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
    # folder, or hub id with @revision, of a pretrained PixArt pipeline; empty: made here
    source: str = ""
    text_source: str = ""  # the same of a pretrained encoder of the BERT family
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
    licence: str = ""  # of pretrained weights and public data; goes into the manifest
    phantoms: int = 2100  # public images drawn for it
    batch: int = 32
    vae_steps: int = 700
    prior_steps: int = 200
    mapper_steps: int = 500
    dit_steps: int = 1100
    predicts: str = "v_prediction"  # or epsilon; a pretrained DiT keeps its own
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
        one_of("base", PREDICTS, predicts=self.predicts)


@dataclass(frozen=True, kw_only=True)
class FederationConfig:
    """Rounds, waits and how updates are merged."""

    align_rounds: int = 2
    generate_rounds: int = 3
    # auto (alternate under DP, else average) | average | alternate | freeze_a | svd |
    # median | trimmed_mean
    merge: str = "auto"
    weighting: str = "units"  # units | uniform
    weight_cap: float = 0.0  # most weight of a site, times the others' median; 0: none
    norm_bound: float = 0.0  # most change by a site, times the others' median; 0: none
    min_sites: int = 2  # sites without which a round does not count
    wait_s: float = 120.0  # seconds to wait for min_sites to be there
    round_timeout_s: float = 3600.0  # seconds a site has for one round
    return_s: float = 150.0  # seconds a round waits for a site that was lost under it
    evaluate: bool = True  # ask the sites for their held-out loss after generate rounds

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("federation", ("auto", *MERGES), merge=self.merge)
        one_of("federation", ("units", "uniform"), weighting=self.weighting)
        positive(
            "federation",
            min_sites=self.min_sites,
            wait_s=self.wait_s,
            round_timeout_s=self.round_timeout_s,
        )
        within("federation", 0, 86_400, return_s=self.return_s)
        for name in ("weight_cap", "norm_bound"):
            if limit := getattr(self, name):  # below one nobody could be at the median
                within("federation", 1, 1e6, **{name: limit})
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
    steps: int = DRAWING_STEPS
    guidance: float = GUIDANCE

    def __post_init__(self) -> None:
        """Check ranges."""
        positive("synthesis", images=self.images)
        within("synthesis", 1, 999, steps=self.steps)  # the schedule has 1,000
        within("synthesis", 1, 30, guidance=self.guidance)


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a simulation compares the federated model with."""

    local: bool = False  # train each site alone, as long as the federation
    pooled: bool = False  # train on all sites' images in one place
    without_dp: bool = False  # repeat a run with DP without it, on copies of its sites
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
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        """Check what takes two sections to tell."""
        if self.privacy.enabled and (self.study.local or self.study.alignment):
            raise ConfigError(
                "study.local and study.alignment train the same patients again, which a "
                "run with DP has no budget for; switch them off, or compare with "
                "study.without_dp"
            )
        if self.study.without_dp and not self.privacy.enabled:
            raise ConfigError("study.without_dp needs privacy.enabled=true")

    @property
    def digest(self) -> str:
        """Hash of all but `run`, which cannot change the result."""
        facts = asdict(self)
        del facts["run"]
        return digest_of(facts)

    @property
    def plan(self) -> RunPlan:
        """The part of the run that travels to the sites."""
        return RunPlan(
            seed=self.seed,
            merge=self.merge,
            align_rounds=self.federation.align_rounds,
            generate_rounds=self.federation.generate_rounds,
            align=self.align,
            generate=self.generate,
            privacy=self.privacy,
        )

    @property
    def merge(self) -> str:
        """How updates are merged: under DP one factor per round, so that it is exact."""
        if self.federation.merge != "auto":
            return self.federation.merge
        return "alternate" if self.privacy.enabled else "average"
