"""What a run asks of every site: the only configuration that travels.

Frozen dataclasses that check their ranges; units stand in the comment behind a field.
"""

import json
import math
from dataclasses import asdict, dataclass, field

from vgmedgen.config.ranges import digest_of, one_of, positive, within
from vgmedgen.errors import ConfigError

UNITS = ("patient", "lesion", "image")  # strongest first
PRIORS = ("frozen", "private")
MOST_RANK = 1024
MOST_BATCH = 65_536  # images
MOST_PRIVATE_STEPS = 100_000  # of a run; calibration costs time and memory with them
LEAST_EPSILON = 0.05
MOST_EPSILON = 100.0  # beyond it no claim is worth the name
MOST_DELTA = 1e-2
MERGES = ("average", "alternate", "freeze_a", "svd", "median", "trimmed_mean")


def replace_one(epsilon: float, delta: float) -> str:
    """What (epsilon, delta) for a record zeroed out is worth against replace-one, in words.

    One record put in the place of another is two steps of zeroing out. Source: group
    privacy, Vadhan 2017, "The complexity of differential privacy", lemma 2.2, for two.
    """
    worse = min(1.0, (1 + math.exp(epsilon)) * delta)
    return (
        "against telling two records apart (replace-one adjacency) it is worth half: "
        f"epsilon {2 * epsilon:g}, delta {worse:.2g}"
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
        within("align", 1, MOST_BATCH, batch=self.batch)
        within("align", 0, 100, anchor=self.anchor, decoder=self.decoder)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Stage `generate`: LoRA on HFFM and DiT by denoising."""

    steps: int = 120  # optimiser steps per round
    batch: int = 16  # images
    learning_rate: float = 5e-3  # for bases built here; a pretrained PixArt wants 1e-4
    dropout: float = 0.1  # share of captions dropped, so that guidance has two branches
    min_snr: float = (
        0.0  # gamma of min-SNR weighting; 0: see models.objective.loss_weights
    )
    colour_every: int = 0  # steps between colour losses; 0 never
    colour_weight: float = 0.05
    rank: int = 8  # LoRA rank, equal at every site
    alpha: int = 8  # LoRA scale is alpha / rank
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    hffm: bool = True  # LoRA on the HFFM too; under DP it is mostly noise there

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
        # a site builds what it is asked for: sizes need an end, whoever asks
        within("generate", 1, MOST_RANK, rank=self.rank, alpha=self.alpha)
        within("generate", 1, MOST_BATCH, batch=self.batch)
        within(
            "generate", 0, 1000, min_snr=self.min_snr, colour_every=self.colour_every
        )
        within("generate", 0, 1000, colour_weight=self.colour_weight)
        if not self.targets:
            raise ConfigError("generate.targets must name at least one layer")


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """Differential privacy of a run: one claim per unit over all its rounds and stages.

    What is here travels to the sites and fixes the noise; what a machine may choose
    (device, threads, units per forward pass) cannot change it and is not here.
    """

    enabled: bool = False
    epsilon: float = 8.0  # claim per unit over the whole run
    delta: float = 1e-5  # refused at a site whose 1 / units is not above it
    unit: str = "patient"  # weakest unit to protect: patient, lesion or image
    rate: float = 0.25  # Poisson sampling: the chance that a unit joins a step
    batch: int = 16  # fewest units that a step must expect (rate times units)
    images: int = 2  # of each unit in a step, cycled; averaged before the clip
    draws: int = 4  # timesteps and noises per image; averaged before the clip
    mapper_clip: float = 0.2  # L2 norm of one unit's gradient, set on public data
    generate_clip: float = 0.01
    prior_clip: float = 0.2
    align_share: float = 0.0  # of the budget for stage align; 0 shares by steps
    prior: str = "frozen"  # frozen: the base bundle's; private: trained with DP-SGD
    ema: float = 0.0  # decay of the average over steps that is sent; 0 sends the last

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("privacy", UNITS, unit=self.unit)
        if self.prior not in PRIORS:
            raise ConfigError(
                f"privacy.prior must be one of {', '.join(PRIORS)}, got '{self.prior}': a "
                "prior trained on the site's images without DP reveals them through the "
                "text mapper's targets, whatever noise the mapper itself gets"
            )
        positive(
            "privacy",
            epsilon=self.epsilon,
            delta=self.delta,
            rate=self.rate,
            batch=self.batch,
            images=self.images,
            draws=self.draws,
            mapper_clip=self.mapper_clip,
            generate_clip=self.generate_clip,
            prior_clip=self.prior_clip,
        )
        within("privacy", 0, 1, rate=self.rate)
        within("privacy", 1, 256, images=self.images, draws=self.draws)
        within("privacy", LEAST_EPSILON, MOST_EPSILON, epsilon=self.epsilon)
        within("privacy", 0, MOST_DELTA, delta=self.delta)
        within("privacy", 0, 0.99, align_share=self.align_share)
        within("privacy", 0, 0.9999, ema=self.ema)


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run asks every site to do; the only configuration in a message."""

    seed: int = 0
    merge: str = "average"  # decides which LoRA factor trains in a round
    align_rounds: int = 2  # a claim of privacy is over all rounds, so they are told
    generate_rounds: int = 3
    align: AlignConfig = field(default_factory=AlignConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("federation", MERGES, merge=self.merge)
        within("federation", 1, 10_000, align_rounds=self.align_rounds)
        within("federation", 1, 10_000, generate_rounds=self.generate_rounds)
        within("plan", -(2**63), 2**63 - 1, seed=self.seed)
        if self.privacy.enabled and self.steps > MOST_PRIVATE_STEPS:
            raise ConfigError(
                f"the run has {self.steps} steps in all; under differential privacy at "
                f"most {MOST_PRIVATE_STEPS} can be accounted for: ask for fewer rounds or "
                "steps"
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of all rounds at one site."""
        align = self.align.prior_steps + self.align.mapper_steps
        rounds = self.align_rounds, self.generate_rounds
        return rounds[0] * align + rounds[1] * self.generate.steps

    @property
    def digest(self) -> str:
        """Hash of the plan; a site names it beside everything it stores."""
        return digest_of(asdict(self))

    def to_json(self) -> str:
        """The plan as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)
