"""The noise of a whole training: Gaussian, of the plan's deviation, and never used twice.

z is what was released, minus the clipped sum, in units of the plan's deviation: standard
normal at every weight and step, and independent of everything else. d values in P tensors,
T steps. Sizes are judged on all values, comparisons on the first `KEPT` of each tensor,
where noise that is used again stands at the same places.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from vgmedgen.audit import chances
from vgmedgen.audit.chances import Chance
from vgmedgen.audit.recording import KEPT, Recording

LAGS = 8  # steps apart, up to which all steps together are asked for a memory


def sizes(recordings: Sequence[Recording]) -> list[Chance]:
    """Whether every value is Gaussian, of the plan's deviation, and around zero."""
    return [
        _everywhere(recordings),
        _tensors(recordings),
        _steps(recordings),
        _centre(recordings),
        _weights(recordings),
        _shape(recordings),
    ]


def reuse(recordings: Sequence[Recording]) -> list[Chance]:
    """Whether noise is used again: in another tensor, in another step, or in the sum."""
    return [
        _between_steps(recordings),
        _between_tensors(recordings),
        _memory(recordings),
        _along(recordings),
    ]


def between(first: Sequence[Recording], second: Sequence[Recording]) -> Chance:
    """Whether a step of one run has noise of a step of another: (T, T') comparisons."""
    values, sizes_, places = [], [], []
    for one in first:
        for other in second:
            (a, b), n = _comparable(one, other)
            values.append(_cosines(a, b).ravel())
            sizes_.append(np.full(values[-1].size, n))
            places.append((one.round, other.round))
    flat = np.concatenate(values or [np.zeros(0)])
    value, place = chances.worst(
        chances.cosines(flat, np.concatenate(sizes_ or [np.zeros(0)]))
    )
    seen = abs(flat[place]) if flat.size else 0.0
    return Chance(
        question="noise of two runs",
        value=value,
        detail=f"noise of two runs correlates by {seen:.3f} at most",
    )


def _everywhere(recordings: Sequence[Recording]) -> Chance:
    total = sum(float(step.squares.sum()) for r in recordings for step in r.steps)
    count = sum(sum(r.sizes) * len(r.steps) for r in recordings)
    deviation = (total / max(1, count)) ** 0.5
    return Chance(
        question="deviation of all noise",
        value=float(chances.squares(total, count)) if count else 1.0,
        detail=f"the deviation of {count} values is {deviation:.4f} of what the plan asks",
    )


def _tensors(recordings: Sequence[Recording]) -> Chance:
    """Every tensor in every step, and every tensor over all steps."""
    totals, counts, names = [], [], []
    for r in recordings:
        squares = torch.stack([step.squares for step in r.steps])
        numel = torch.tensor(r.sizes).double()
        totals += [squares.flatten(), squares.sum(0)]
        counts += [numel.repeat(len(r.steps)), numel * len(r.steps)]
        steps = [f"step {k + 1}" for k in range(len(r.steps))] + ["all steps"]
        names += [
            f"round {r.round}, {step}, {name}" for step in steps for name in r.names
        ]
    return _worst_size("deviation at a tensor", totals, counts, names)


def _steps(recordings: Sequence[Recording]) -> Chance:
    totals, counts, names = [], [], []
    for r in recordings:
        totals.append(torch.stack([step.squares.sum() for step in r.steps]))
        counts.append(torch.full((len(r.steps),), float(sum(r.sizes))).double())
        names += [f"round {r.round}, step {k + 1}" for k in range(len(r.steps))]
    return _worst_size("deviation in a step", totals, counts, names)


def _weights(recordings: Sequence[Recording]) -> Chance:
    """Every single weight over the steps of its round: size, and mean."""
    values, count = [], 0
    for r in recordings:
        if r.totals is None:
            continue
        sums, squares = r.totals.double().cpu().numpy()
        values += [
            chances.squares(squares, len(r.steps)).min(),
            chances.normal(sums / len(r.steps) ** 0.5).min(),
        ]
        count += 2 * sum(r.sizes)
    return Chance(
        question="noise of a single weight",
        value=chances.worst(values, of=count)[0],
        detail=f"the rarest of {count} sums over steps",
    )


def _centre(recordings: Sequence[Recording]) -> Chance:
    """Every tensor in every step, every step, and everything together: the mean."""
    values, whole, count = [], 0.0, 0
    for r in recordings:
        sums = torch.stack([step.sums for step in r.steps])
        numel = torch.tensor(r.sizes).double()
        values.append((sums / numel.sqrt()).flatten())
        values.append(sums.sum(1) / numel.sum().sqrt())
        whole, count = whole + float(sums.sum()), count + sum(r.sizes) * len(r.steps)
    values.append(torch.tensor([whole / max(1, count) ** 0.5]))
    flat = torch.cat([one.double() for one in values]).numpy()
    value, place = chances.worst(chances.normal(flat))
    return Chance(
        question="mean of the noise",
        value=value,
        detail=f"the mean furthest from 0 is {abs(flat[place]):.1f} standard errors away",
    )


def _shape(recordings: Sequence[Recording]) -> Chance:
    """Every step's distribution, and that of all steps of a round."""
    values, gaps = [], 0
    for r in recordings:
        kept = _kept(r).numpy()
        values += [*chances.shape(kept), float(chances.shape(kept.ravel()))]
        gaps += kept.size
    return Chance(
        question="the noise is Gaussian",
        value=chances.worst(values)[0],
        detail=f"the rarest of {len(values)} distributions, {gaps} values",
    )


def _between_steps(recordings: Sequence[Recording]) -> Chance:
    """Every two steps of the training, in whichever round."""
    values, counts = [np.zeros(0)], [np.zeros(0)]
    for place, one in enumerate(recordings):
        for other in recordings[place:]:
            (a, b), n = _comparable(one, other)
            found = _cosines(a, b)
            flat = found[np.triu_indices(len(found), 1)] if one is other else found
            values.append(flat.ravel())
            counts.append(np.full(values[-1].size, n))
    flat = np.concatenate(values)
    value, place = chances.worst(chances.cosines(flat, np.concatenate(counts)))
    seen = abs(flat[place]) if flat.size else 0.0
    return Chance(
        question="noise of two steps",
        value=value,
        detail=f"noise of two steps correlates by {seen:.3f} at most ({flat.size} pairs)",
    )


def _between_tensors(recordings: Sequence[Recording]) -> Chance:
    """Every two tensors: in each step, and over all steps of a round."""
    values, counts, names = [np.zeros(0)], [np.zeros(0)], []
    for r in recordings:
        kept = torch.split(_kept(r), [min(KEPT, size) for size in r.sizes], dim=1)
        for one, other in combinations(range(len(kept)), 2):
            n = min(kept[one].shape[1], kept[other].shape[1])
            a, b = kept[one][:, :n].double(), kept[other][:, :n].double()
            dots = (a * b).sum(1)
            lengths = a.norm(dim=1) * b.norm(dim=1)
            whole = dots.sum() / (a.norm() * b.norm())
            values.append(torch.cat([dots / lengths, whole[None]]).numpy())
            counts.append(np.array([*[n] * len(a), n * len(a)]))
            names.append((r.names[one], r.names[other], len(a) + 1))
    flat = np.concatenate(values)
    value, place = chances.worst(chances.cosines(flat, np.concatenate(counts)))
    detail = "one tensor alone"
    for first, second, size in names:
        if place < size:
            detail = f"{first} and {second} correlate by {abs(flat).max():.3f} at most"
            break
        place -= size
    return Chance(question="noise of two tensors", value=value, detail=detail)


def _memory(recordings: Sequence[Recording]) -> Chance:
    """Whether noise returns some steps later, all steps together."""
    values, counts, lags = [], [], []
    for r in recordings:
        kept = _kept(r).double()
        steps = len(kept)
        for lag in range(1, min(LAGS, steps // 2) + 1):
            # no step stands in two pairs, so that both sides are independent
            first = [s for s in range(steps - lag) if s % (2 * lag) < lag]
            a, b = kept[first], kept[[s + lag for s in first]]
            values.append(float((a * b).sum() / (a.norm() * b.norm())))
            counts.append(a.numel())
            lags.append(lag)
    value, place = chances.worst(chances.cosines(values, counts))
    detail = "too few steps"
    if values:
        detail = f"noise {lags[place]} steps apart correlates by {values[place]:.4f}"
    return Chance(question="memory of the noise", value=value, detail=detail)


def _along(recordings: Sequence[Recording]) -> Chance:
    """Whether noise leans towards, or away from, the sum that it hides."""
    along = np.array([step.along for r in recordings for step in r.steps])
    taken = along[along != 0]
    pooled = taken.sum() / max(1, len(taken)) ** 0.5
    values = chances.normal([*taken, pooled])
    value, _ = chances.worst(values)
    return Chance(
        question="noise and what it hides",
        value=value,
        detail=f"along the sums the noise is {pooled:.1f} standard errors from 0",
    )


def _kept(recording: Recording) -> Tensor:
    """(T, K) of a round."""
    return torch.stack([step.kept for step in recording.steps])


def _comparable(one: Recording, other: Recording) -> tuple[tuple[Tensor, Tensor], int]:
    """Noise of two rounds at places that correspond: all, or the first tensor's.

    Rounds that train other tensors have no more in common than where a stream begins.
    """
    a, b = _kept(one), _kept(other)
    n = a.shape[1]
    if one.sizes != other.sizes:
        n = min(one.sizes[0], other.sizes[0], KEPT)
    return (a[:, :n].double(), b[:, :n].double()), n


def _cosines(a: Tensor, b: Tensor) -> np.ndarray:
    """Normalised dot products (T, T') of rows."""
    lengths = a.norm(dim=1)[:, None] * b.norm(dim=1)
    found: np.ndarray = (a @ b.T / lengths).numpy()
    return found


def _worst_size(
    question: str, totals: list[Tensor], counts: list[Tensor], names: list[str]
) -> Chance:
    total, count = torch.cat(totals).numpy(), torch.cat(counts).numpy()
    value, place = chances.worst(chances.squares(total, count))
    deviation = (total[place] / count[place]) ** 0.5
    return Chance(
        question=question,
        value=value,
        detail=f"furthest off, {deviation:.4f} of the plan's: {names[place]}",
    )
