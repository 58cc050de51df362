"""Merge the sites' updates into the next global weights: arrays in, arrays out.

LoRA names end in `.A` (rank, in) and `.B` (out, rank); the layer adds the product B A.
The mean of factors is not the mean of products, so four rules stand side by side:

`average`       mean of each factor; close while sites stay close to the shared start
`alternate`     one factor a round, the other equal at all sites: exact, half the bytes
`freeze_a`      only B ever trains (FFA-LoRA, Sun et al. 2024, arXiv 2403.12313): exact
`svd`           mean of the products, refactored: exact up to the rank

`median` and `trimmed_mean` (Yin et al. 2018, arXiv 1803.01498) hold against a few sites
that send nonsense; they look at each coordinate alone and at no weight.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vgmedgen.errors import ExchangeError

State = Mapping[str, np.ndarray]
Merged = dict[str, np.ndarray]

TRIM = 0.2  # share cut from either end by `trimmed_mean`
FEWEST_TO_TRIM = 3  # sites; of two, neither is the extreme


@dataclass(frozen=True)
class Update:
    """What one site sent: its state, and the weight that it gets in a mean."""

    site: str
    weight: float
    state: State


def trained_factor(merge: str, turn: int) -> str | None:
    """Which LoRA factor trains in a round; None where both do.

    Args:
        merge: one of `vgmedgen.config.run.MERGES`.
        turn: round within the generate stage, from 1. B comes first: it starts at zero,
            and until it moves A has no gradient.
    """
    if merge == "alternate":
        return "B" if turn % 2 else "A"
    return "B" if merge == "freeze_a" else None


def combine(
    merge: str, stage: str, turn: int, previous: State, updates: Sequence[Update]
) -> Merged:
    """The next global weights of the group that `stage` trains.

    Args:
        merge: one of `vgmedgen.config.run.MERGES`.
        stage: align merges the mapper, whose tensors are no factors.
        turn: round within the stage, from 1.
        previous: the group's weights that the sites started from.
        updates: at least one.

    Returns:
        float32 arrays under the names of `previous`, the same for any order of updates.
    """
    if merge in ROBUST:
        return ROBUST[merge](updates)
    if stage == "align" or merge == "average":
        return average(updates)
    if merge == "alternate":
        return alternate(updates, previous, turn)
    if merge == "freeze_a":
        return freeze_a(updates, previous)
    return svd(updates, previous)


def average(updates: Sequence[Update]) -> Merged:
    """Weighted mean of every tensor."""
    shares = _shares(updates)
    return {
        name: _as_float32(
            sum(share * _wide(update, name) for update, share in shares)  # type: ignore[arg-type]
        )
        for name in _names(updates)
    }


def alternate(updates: Sequence[Update], previous: State, turn: int) -> Merged:
    """Weighted mean of the factor whose turn it is; the other stays as it was."""
    return _one_factor(updates, previous, trained_factor("alternate", turn) or "B")


def freeze_a(updates: Sequence[Update], previous: State) -> Merged:
    """Weighted mean of B; A stays as it was."""
    return _one_factor(updates, previous, "B")


def svd(updates: Sequence[Update], previous: State) -> Merged:
    """Weighted mean of the products B A, cut to the rank of `previous`.

    The products are never formed: with the factors stacked along the rank and a QR of
    either stack, only a small matrix of side (sum of ranks) is decomposed. Ranks may
    differ between updates. All of the singular values go to B; the rows of A stay
    orthogonal and as long as the sites' rows were, so that a direction that nobody used
    yet can still be learned.
    """
    shares = _shares(updates)
    merged: Merged = {}
    for name in sorted(previous):
        if not name.endswith(".A"):
            continue
        stem = name.removesuffix(".A")
        down = [_wide(update, f"{stem}.A") for update, _ in shares]  # (rank, in)
        up = [share * _wide(update, f"{stem}.B") for update, share in shares]
        rank = previous[name].shape[0]
        length = np.sqrt(np.mean([np.square(a).sum(axis=1).mean() for a in down]))
        factor_a, factor_b = _refactor(np.hstack(up), np.vstack(down), rank)
        scale = length if length > 0 else 1.0
        merged[name] = _as_float32(factor_a * scale)
        merged[f"{stem}.B"] = _as_float32(factor_b / scale)
    return merged


def median(updates: Sequence[Update]) -> Merged:
    """Median of every coordinate, each site counting once."""
    return {
        name: _as_float32(np.median(_stack(updates, name), axis=0))
        for name in _names(updates)
    }


def trimmed_mean(updates: Sequence[Update], share: float = TRIM) -> Merged:
    """Mean of every coordinate without its extremes, each site counting once.

    Args:
        updates: of the sites.
        share: cut from either end, rounded down, but at least one site where there are
            three: a trim that trims nobody would protect from nobody.
    """
    count = len(updates)
    cut = max(int(share * count), 1 if count >= FEWEST_TO_TRIM else 0)
    merged = {}
    for name in _names(updates):
        ordered = np.sort(_stack(updates, name), axis=0)
        merged[name] = _as_float32(ordered[cut : count - cut].mean(axis=0))
    return merged


ROBUST: Mapping[str, Callable[[Sequence[Update]], Merged]] = {
    "median": median,
    "trimmed_mean": trimmed_mean,
}


def _one_factor(updates: Sequence[Update], previous: State, factor: str) -> Merged:
    ending = f".{factor}"
    only = [
        Update(
            site=update.site,
            weight=update.weight,
            state={n: a for n, a in update.state.items() if n.endswith(ending)},
        )
        for update in updates
    ]
    return {name: previous[name].copy() for name in sorted(previous)} | average(only)


def _refactor(
    up: np.ndarray, down: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factors A, its rows orthonormal, and B; B A is nearest to `up @ down`."""
    left, left_core = np.linalg.qr(up)
    right, right_core = np.linalg.qr(down.T)
    u, strength, v = np.linalg.svd(left_core @ right_core.T, full_matrices=False)
    kept = min(rank, len(strength))
    # A singular vector is defined up to its sign; fix it, so that equal input gives
    # equal output everywhere.
    peak = np.abs(v[:kept]).argmax(axis=1)
    sign = np.where(v[np.arange(kept), peak] < 0, -1.0, 1.0)
    factor_a = np.zeros((rank, down.shape[1]))
    factor_b = np.zeros((up.shape[0], rank))
    factor_a[:kept] = (sign[:, None] * v[:kept]) @ right.T
    factor_b[:, :kept] = (left @ u[:, :kept]) * (strength[:kept] * sign)
    return factor_a, factor_b


def _sorted(updates: Sequence[Update]) -> list[Update]:
    if not updates:
        raise ExchangeError("there is no update to merge")
    return sorted(updates, key=lambda update: update.site)


def _shares(updates: Sequence[Update]) -> list[tuple[Update, float]]:
    ordered = _sorted(updates)
    total = sum(update.weight for update in ordered)
    if not (np.isfinite(total) and all(update.weight > 0 for update in ordered)):
        raise ExchangeError("every update needs a finite weight above 0")
    return [(update, update.weight / total) for update in ordered]


def _names(updates: Sequence[Update]) -> list[str]:
    ordered = _sorted(updates)
    first = ordered[0].state
    for update in ordered:
        if set(update.state) != set(first):
            raise ExchangeError(f"the update of {update.site} has other tensors")
    return sorted(first)


def _wide(update: Update, name: str) -> np.ndarray:
    return update.state[name].astype(np.float64)


def _stack(updates: Sequence[Update], name: str) -> np.ndarray:
    return np.stack([_wide(update, name) for update in _sorted(updates)])


def _as_float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=np.float32)
