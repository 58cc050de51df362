"""Epsilon of what was trained, computed from facts; nothing here stores anything.

The facts are those of the Poisson-subsampled Gaussian mechanism. Adjacency is one unit's
record zeroed out, with the number of units public; its privacy loss is the one that
Opacus computes for a unit added or removed.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

from vgmedgen.config.ranges import positive, within

MOST_GROUPS = 24  # distinct (noise, rate) above which PRV takes minutes: RDP then
FINEST, COARSEST = 5e-4, 0.01  # bounds of PRV's error in epsilon
# Renyi orders; those beyond 64 matter to small epsilons only
ORDERS = [1 + x / 10 for x in range(1, 100)] + [*range(12, 64), 96, 128, 256, 512, 1024]
LEAST_DELTA = 1e-8  # error in delta that a composed curve may have
MOST_COMPOSED = 60.0  # epsilon beyond which composing a curve takes too much memory
ERROR_SHARE = 0.002  # PRV's error as a share of epsilon, between those bounds


@dataclass(frozen=True, kw_only=True, order=True)
class Mechanism:
    """Steps of DP-SGD that share noise and rate: the facts that a ledger books."""

    noise: float  # noise multiplier: standard deviation over clip norm
    rate: float  # probability with which a unit joins a step
    steps: int

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: for a value that is not of a mechanism, NaN included.
        """
        positive("mechanism", noise=self.noise, rate=self.rate, steps=self.steps)
        within("mechanism", 0, 1, rate=self.rate)
        within("mechanism", 0, 1e9, noise=self.noise, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class Spent:
    """An epsilon, and the accountant behind it."""

    epsilon: float
    accountant: str  # PRV | RDP | none (nothing was spent)


def spent(mechanisms: Iterable[Mechanism], delta: float) -> Spent:
    """Epsilon of all `mechanisms` together, in any order; an upper bound.

    PRV composes numerically (Gopi, Lee and Wutschitz 2021, arXiv 2106.02848). Where it
    would take minutes, the Renyi accountant (Mironov, Talwar and Zhang 2019, arXiv
    1908.10530) gives a looser bound in seconds.
    """
    history = merged(mechanisms)
    if not history:
        return Spent(epsilon=0.0, accountant="none")
    rough = _rdp(history, delta)
    if len(history) > MOST_GROUPS or not math.isfinite(rough):
        return Spent(epsilon=rough, accountant="RDP")
    # PRV adds its error to what it returns, so the error follows epsilon: a fixed one of
    # 0.01 would be a tenth of a small epsilon, and a fine one is slow for a large epsilon
    error = min(max(ERROR_SHARE * rough, FINEST), COARSEST)
    fine = _prv(history, delta, error)
    if not fine <= rough:  # not a number, where PRV's grid overflowed
        return Spent(epsilon=rough, accountant="RDP")
    return Spent(epsilon=fine, accountant="PRV")


def profile(
    mechanisms: Iterable[Mechanism], epsilons: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Delta of all `mechanisms` together at each epsilon (k,) from 0 up: upper bounds.

    The smaller of what PRV composes numerically and what Renyi divergences allow.
    """
    history = merged(mechanisms)
    with _silent():
        divergences = np.sum(
            [
                compute_rdp(
                    q=one.rate,
                    noise_multiplier=one.noise,
                    steps=one.steps,
                    orders=ORDERS,
                )
                for one in history
            ],
            axis=0,
        )
        orders = np.array(ORDERS)
        # Canonne, Kamath and Steinke 2020, arXiv 2004.00010, proposition 12
        powers = (
            (orders - 1) * (divergences - epsilons[:, None])
            + (orders - 1) * np.log1p(-1 / orders)
            - np.log(orders)
        )
        deltas = np.exp(np.nan_to_num(powers, nan=0.0)).min(1)
        accountant = PRVAccountant()
        accountant.history = [(one.noise, one.rate, one.steps) for one in history]
        reach = (divergences + math.log(1 / LEAST_DELTA) / (orders - 1)).min()
        if reach < MOST_COMPOSED:  # false where a divergence is no number
            found = accountant._get_dprv(eps_error=COARSEST, delta_error=LEAST_DELTA)  # noqa: SLF001  # the library gives no curve otherwise
            losses, mass = found.domain.ts, found.pmf
            gains = -np.expm1(np.minimum(0.0, epsilons[:, None] - COARSEST - losses))
            composed = gains @ mass + LEAST_DELTA
            deltas = np.fmin(deltas, composed)
    bounded: NDArray[np.float64] = np.clip(deltas, 0.0, 1.0)
    return bounded


def bound(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """A looser bound than `spent`, by Renyi divergences, in milliseconds."""
    history = merged(mechanisms)
    return _rdp(history, delta) if history else 0.0


def divergence(one: Mechanism, order: float) -> float:
    """Renyi divergence of `order`: the cost that adds up over mechanisms."""
    with _silent():
        return float(
            compute_rdp(
                q=one.rate, noise_multiplier=one.noise, steps=one.steps, orders=order
            )
        )


def best_order(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """The order whose divergence gives the tightest of the quick bounds."""
    history = merged(mechanisms)
    with _silent():
        cost = sum(
            compute_rdp(
                q=one.rate, noise_multiplier=one.noise, steps=one.steps, orders=ORDERS
            )
            for one in history
        )
        _, order = get_privacy_spent(orders=ORDERS, rdp=cost, delta=delta)
    return float(order)


def merged(mechanisms: Iterable[Mechanism]) -> list[Mechanism]:
    """The same mechanisms with equal (noise, rate) put together, in a fixed order."""
    steps: Counter[tuple[float, float]] = Counter()
    for one in mechanisms:
        steps[one.noise, one.rate] += one.steps
    return [
        Mechanism(noise=noise, rate=rate, steps=count)
        for (noise, rate), count in sorted(steps.items())
    ]


def _prv(history: list[Mechanism], delta: float, error: float) -> float:
    accountant = PRVAccountant()
    accountant.history = [(one.noise, one.rate, one.steps) for one in history]
    with _silent():
        return float(accountant.get_epsilon(delta, eps_error=error))


def _rdp(history: list[Mechanism], delta: float) -> float:
    accountant = RDPAccountant()
    accountant.history = [(one.noise, one.rate, one.steps) for one in history]
    with _silent():
        return float(accountant.get_epsilon(delta, alphas=ORDERS))


@contextmanager
def _silent() -> Iterator[None]:
    """Opacus warns of orders at an end of their range, and its grids overflow.

    Neither makes a bound wrong: the first is only looser, the second is not a number
    and `spent` looks for it.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
