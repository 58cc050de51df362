"""Who joined each step, against what accounting assumes: each unit by a coin of its own.

The coins must be independent between units and between steps, all with the plan's rate.
Sampling without replacement, in shuffled epochs, or with one unit always there would each
have a larger epsilon than the one that is claimed.

T steps, N units. Each question is asked with an exact distribution or a bound of
`chances.py`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vgmedgen.audit import chances
from vgmedgen.audit.chances import Chance
from vgmedgen.audit.recording import Recording, Step

LAGS = 8  # steps apart, up to which all units together are asked for a memory

Joins = NDArray[np.bool_]


def joins(
    recordings: Sequence[Recording], units: Sequence[Sequence[int]]
) -> tuple[Joins, list[str]]:
    """Who joined: (T, N), and what is wrong with how they did.

    Args:
        recordings: rounds of one training.
        units: rows of each unit's images.
    """
    owner = {row: unit for unit, rows in enumerate(units) for row in rows}
    table, faults = [], []
    for recording in recordings:
        size = recording.terms.rows
        for number, step in enumerate(recording.steps):
            where = f"round {recording.round}, step {number + 1}"
            chosen = _units(step, size, owner)
            if chosen is None:
                faults.append(f"{where}: rows of several units are taken for one")
                chosen = []
            elif len(set(chosen)) < len(chosen):
                faults.append(f"{where}: a unit is counted twice")
            row = np.zeros(len(units), dtype=bool)
            row[chosen] = True
            table.append(row)
    return np.array(table).reshape(len(table), len(units)), faults


def _units(step: Step, size: int, owner: dict[int, int]) -> list[int] | None:
    """The units of a step, one for each `size` rows; None where rows are mixed."""
    found: list[int] = []
    for rows in step.rows:
        if len(rows) % size:
            return None
        for part in rows.view(-1, size).tolist():
            of = {owner.get(row, -1) for row in part}
            if len(of) > 1 or -1 in of:
                return None
            found += of
    return found


def questions(table: Joins, rate: float) -> list[Chance]:
    """All that is asked of one training's joins (T, N)."""
    steps, units = table.shape
    return [
        _whole(table, rate),
        _each(table, rate),
        Chance(
            question="units in a step",
            value=chances.spread(table.sum(1), units, rate),
            detail=f"from {table.sum(1).min()} to {table.sum(1).max()} of {units} units "
            f"join a step, {units * rate:.1f} are expected",
        ),
        Chance(
            question="steps of a unit",
            value=chances.spread(table.sum(0), steps, rate),
            detail=f"units join {table.sum(0).min()} to {table.sum(0).max()} of {steps} "
            f"steps, {steps * rate:.1f} are expected",
        ),
        _pairs(table.T, rate, "units that join together", "units"),
        _pairs(table, rate, "steps of the same units", "steps"),
        _memory(table, rate),
    ]


def between(first: Joins, second: Joins, rate: float) -> Chance:
    """Whether two rounds of one training are joined by the same units.

    Asked of every two steps, and of all steps with the same number together.
    """
    units, steps = first.shape[1], min(len(first), len(second))
    both = first.astype(np.int64) @ second.T.astype(np.int64)
    every, _ = chances.worst(chances.counts(both, units, rate**2))
    alike = int((first[:steps] == second[:steps]).sum())
    same = rate**2 + (1 - rate) ** 2
    together = float(chances.counts(alike, steps * units, same))
    return Chance(
        question="steps of two runs",
        value=chances.worst([every, together])[0],
        detail=f"two runs agree on {alike / max(1, steps * units):.4f} of who joins, "
        f"{same:.4f} are expected; two steps share up to {both.max()} units",
    )


def _whole(table: Joins, rate: float) -> Chance:
    joined = int(table.sum())
    return Chance(
        question="the rate",
        value=float(chances.counts(joined, table.size, rate)),
        detail=f"units join {joined / max(1, table.size):.4f} of the steps, the plan says "
        f"{rate:g}",
    )


def _each(table: Joins, rate: float) -> Chance:
    counts = table.sum(0)
    value, place = chances.worst(chances.counts(counts, len(table), rate))
    return Chance(
        question="every unit's rate",
        value=value,
        detail=f"the unit furthest off joins {counts[place]} of {len(table)} steps, "
        f"{rate * len(table):.1f} are expected",
    )


def _pairs(rows: Joins, rate: float, question: str, what: str) -> Chance:
    """Whether two rows, of any, go together or apart more than chance has them."""
    count, of = rows.shape
    upper = np.triu_indices(count, 1)
    here, away = rows.astype(np.int64), (~rows).astype(np.int64)
    both = (here @ here.T)[upper]
    alike = both + (away @ away.T)[upper]
    tails = [
        chances.counts(both, of, rate**2),
        chances.counts(alike, of, rate**2 + (1 - rate) ** 2),
    ]
    value, place = chances.worst(tails)
    place %= max(1, both.size)
    common = both[place] if both.size else 0
    return Chance(
        question=question,
        value=value,
        detail=f"the two {what} furthest off have {common} of {of} in common, "
        f"{rate**2 * of:.1f} are expected",
    )


def _memory(table: Joins, rate: float) -> Chance:
    """Whether who joined a step joins again some steps later, over all units."""
    steps, units = table.shape
    tried: list[tuple[float, int, float]] = []
    for lag in range(1, min(LAGS, steps // 2) + 1):
        # blocks of twice the lag: no step stands in two pairs, so that all are independent
        first = [s for s in range(steps - lag) if s % (2 * lag) < lag]
        again = int((table[first] & table[[s + lag for s in first]]).sum())
        pairs = len(first) * units
        tried.append(
            (float(chances.counts(again, pairs, rate**2)), lag, again / max(1, pairs))
        )
    value, place = chances.worst([one for one, _, _ in tried])
    detail = "too few steps"
    if tried:
        _, lag, share = tried[place]
        detail = (
            f"{share:.4f} join and join again {lag} steps later, {rate**2:.4f} are "
        )
        detail += "expected"
    return Chance(question="memory between steps", value=value, detail=detail)
