"""What a run costs and how much noise keeps its claim, settled before anything trains.

One `PrivacyPlan` covers every round and stage of a run. It is made from what travels
(`vgmedgen.config.plan.RunPlan`) alone, so every site and whoever audits it finds the same
numbers.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from vgmedgen.config.plan import MOST_DELTA, MOST_EPSILON, PrivacyConfig, RunPlan
from vgmedgen.config.ranges import positive, within
from vgmedgen.errors import ConfigError
from vgmedgen.privacy.accountant import (
    Mechanism,
    best_order,
    bound,
    divergence,
    spent,
)

STRIDE = 250  # places of the grid, about an eighth of the noise
GRID = 5e-4  # noise is found on a grid of this relative width, rounded up
LEAST_NOISE, MOST_NOISE = 0.3, 1e4

MAPPER, LORA, PRIOR = "mapper", "generate", "prior"


@dataclass(frozen=True, kw_only=True)
class Training:
    """One kind of training in a run: how often it happens, and what bounds it."""

    stage: str  # align | generate
    rounds: int  # of its stage in the whole run
    clip: float  # L2 norm of one unit's gradient
    mechanism: Mechanism  # of one round


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """The noise of every training of a run, under one claim."""

    epsilon: float
    delta: float
    unit: str
    trainings: Mapping[str, Training]  # by name: mapper, generate, and prior if private

    @classmethod
    def of(cls, plan: RunPlan) -> "PrivacyPlan":
        """Calibrate `plan`; the same plan always gives the same noise.

        Raises:
            ConfigError: if DP is off, or no noise in range keeps the claim.
        """
        if not plan.privacy.enabled:
            raise ConfigError(
                "privacy.enabled is false: a run without DP has no privacy plan"
            )
        return _planned(plan)

    def round(self, stage: str) -> tuple[Mechanism, ...]:
        """What one round of `stage` costs."""
        found = [t.mechanism for t in self.trainings.values() if t.stage == stage]
        return tuple(sorted(found))

    def whole(self) -> tuple[Mechanism, ...]:
        """What all rounds of the run cost."""
        return tuple(
            Mechanism(
                noise=one.mechanism.noise,
                rate=one.mechanism.rate,
                steps=one.mechanism.steps * one.rounds,
            )
            for one in self.trainings.values()
        )


def calibrate(*, epsilon: float, delta: float = 1e-5, rate: float, steps: int) -> float:
    """Noise multiplier with which `steps` steps at `rate` keep (`epsilon`, `delta`).

    It is the smallest on a grid of relative width `GRID`, so that the claim is never
    exceeded.

    Args:
        epsilon: at most 100.
        delta: at most 0.01.
        rate: Poisson sampling rate, in (0, 1].
        steps: of the whole run.

    Raises:
        ConfigError: for a value out of its range, NaN included.
    """
    positive("privacy", epsilon=epsilon, delta=delta, rate=rate, steps=steps)
    within("privacy", 0, 1, rate=rate)
    within("privacy", 0, MOST_EPSILON, epsilon=epsilon)
    within("privacy", 0, MOST_DELTA, delta=delta)
    return _calibrate(((1.0, rate, steps),), epsilon, delta)


@lru_cache(maxsize=256)
def _calibrate(
    parts: tuple[tuple[float, float, int], ...], epsilon: float, delta: float
) -> float:
    """Smallest scale on the grid at which parts (factor, rate, steps) keep epsilon."""

    def made(place: int) -> list[Mechanism]:
        scale = _noise(place)
        return [
            Mechanism(noise=factor * scale, rate=rate, steps=steps)
            for factor, rate, steps in parts
        ]

    @lru_cache(maxsize=64)
    def cost(place: int) -> float:
        return spent(made(place), delta).epsilon

    least = math.floor(math.log(LEAST_NOISE) / GRID)
    most = math.ceil(math.log(MOST_NOISE) / GRID)
    # the quick bound gives a noise that is enough, a tenth or so above the smallest
    enough = bisect_left(
        range(least, most), -epsilon, key=lambda place: -bound(made(place), delta)
    )
    high = least + enough
    if high == most and cost(high) > epsilon:
        raise ConfigError(
            f"no noise multiplier up to {MOST_NOISE:g} keeps epsilon {epsilon:g} at delta "
            f"{delta:g}; take fewer steps or a larger epsilon"
        )
    low = high
    while low > least and cost(low) <= epsilon:
        low = max(least, low - STRIDE)
    if cost(low) <= epsilon:
        return _noise(low)
    return _noise(_first_below(cost, epsilon, low, high))


def _noise(place: int) -> float:
    return math.exp(GRID * place)


def _first_below(
    cost: Callable[[int], float], target: float, low: int, high: int
) -> int:
    """First place in (low, high] whose cost is at most `target`; cost falls.

    Bisection, helped by the secant in log cost: each evaluation composes thousands of
    mechanisms, and log epsilon is nearly straight in log noise.
    """
    while high - low > 1:
        span = math.log(cost(low)) - math.log(cost(high))
        share = (math.log(cost(low)) - math.log(target)) / span if span > 0 else 0.5
        guess = low + round(share * (high - low))
        # one beside the secant's answer closes the bracket from the other side
        for place in (guess, guess + 1, guess - 1, (low + high) // 2):
            if low < place < high:
                if cost(place) <= target:
                    high = place
                else:
                    low = place
    return high


@lru_cache(maxsize=32)
def _planned(plan: RunPlan) -> PrivacyPlan:
    ask = plan.privacy
    asked = _asked(plan)
    total = {name: rounds * steps for name, (_, rounds, steps, _) in asked.items()}
    factors = _factors(asked, total, ask)
    parts = tuple((factors[name], ask.rate, total[name]) for name in asked)
    scale = _calibrate(parts, ask.epsilon, ask.delta)
    trainings = {
        name: Training(
            stage=stage,
            rounds=rounds,
            clip=clip,
            mechanism=Mechanism(
                noise=factors[name] * scale, rate=ask.rate, steps=steps
            ),
        )
        for name, (stage, rounds, steps, clip) in asked.items()
    }
    return PrivacyPlan(
        epsilon=ask.epsilon, delta=ask.delta, unit=ask.unit, trainings=trainings
    )


def _asked(plan: RunPlan) -> dict[str, tuple[str, int, int, float]]:
    """Stage, rounds, steps per round and clip of every training of a run."""
    ask = plan.privacy
    asked = {
        MAPPER: ("align", plan.align_rounds, plan.align.mapper_steps, ask.mapper_clip),
        LORA: (
            "generate",
            plan.generate_rounds,
            plan.generate.steps,
            ask.generate_clip,
        ),
    }
    if ask.prior == "private":
        asked[PRIOR] = (
            "align",
            plan.align_rounds,
            plan.align.prior_steps,
            ask.prior_clip,
        )
    return asked


def _factors(
    asked: Mapping[str, tuple[str, int, int, float]],
    total: Mapping[str, int],
    ask: PrivacyConfig,
) -> dict[str, float]:
    """Noise of every training as a multiple of one scale.

    A stage's share is of the Renyi divergence at the order that counts, which adds up
    over trainings; within a stage trainings share by their steps.
    """
    if not ask.align_share:
        return dict.fromkeys(asked, 1.0)
    even = _calibrate(((1.0, ask.rate, sum(total.values())),), ask.epsilon, ask.delta)
    whole = Mechanism(noise=even, rate=ask.rate, steps=sum(total.values()))
    order = best_order([whole], ask.delta)
    budget = divergence(whole, order)
    of_stage = {"align": ask.align_share, "generate": 1 - ask.align_share}
    stages = {name: stage for name, (stage, _, _, _) in asked.items()}
    factors = {}
    for name, steps in total.items():
        beside = sum(n for other, n in total.items() if stages[other] == stages[name])
        part = budget * of_stage[stages[name]] * steps / beside
        factors[name] = _noise_costing(part, ask.rate, steps, order) / even
    return factors


def _noise_costing(budget: float, rate: float, steps: int, order: float) -> float:
    """The smallest noise on the grid whose divergence is at most `budget`."""

    def cost(place: int) -> float:
        one = Mechanism(noise=_noise(place), rate=rate, steps=steps)
        return -divergence(one, order)

    low = math.floor(math.log(LEAST_NOISE) / GRID)
    high = math.ceil(math.log(MOST_NOISE) / GRID)
    return _noise(low + bisect_left(range(low, high), -budget, key=cost))
