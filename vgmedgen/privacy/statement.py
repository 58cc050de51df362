"""What a ledger says to a person: spent, limit, left, and what a run would cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vgmedgen.config.plan import RunPlan
from vgmedgen.privacy import budget, facts
from vgmedgen.privacy.accountant import Mechanism, Spent, merged
from vgmedgen.privacy.chain import Row
from vgmedgen.privacy.ledger import Ledger
from vgmedgen.privacy.plan import PrivacyPlan

WITHOUT = "trained without DP"
ADJACENCY = (
    "every epsilon here is for one record zeroed out; against telling two records apart "
    "(replace-one) it is worth half"
)


def statement(
    ledger: Ledger, *, limit: float, delta: float, plan: RunPlan | None = None
) -> dict[str, Any]:
    """All that `told` prints, ready for JSON; an epsilon without bound is null.

    Args:
        ledger: of the site.
        limit: epsilon per unit over all runs; 0: the site set none.
        delta: at which epsilon is told.
        plan: of a run that is only thought of.
    """
    rows = ledger.rows()
    cohorts = ledger.cohorts()
    found: dict[str, Any] = {
        "site": ledger.site,
        "ledger": rows[0].facts["ledger"],
        "rows": len(rows),
        "head": rows[-1].hash,
        "moved": rows[-1].time if rows[-1].kind == "moved" else None,
        "delta": delta,
        "limit": limit or None,
        "cohort": vars(cohorts[-1]) if cohorts else None,
        "spent": None,  # by all that was ever booked: told outside, held to the limit
        "worst": None,  # by the unit that spent most: for this hospital's eyes
        "left": limit or None,
        "runs": _runs(rows, delta),
        "for": None,
    }
    booked = facts.everything(rows)
    if cohorts:
        unit, number = cohorts[-1].unit, cohorts[-1].number
        now, worst = budget.total([booked], delta), ledger.worst_unit(delta=delta)
        here = budget.Claim(unit=unit, delta=delta, cohort=number)
        claim = budget.Claim(unit=unit, delta=delta)
        found["spent"] = _epsilon(now) | {"told": claim.told(now)}
        found["worst"] = _epsilon(worst) | {"told": here.told(worst)}
        if limit:
            found["left"] = max(0.0, limit - now.epsilon)
    if plan is not None:
        found["for"] = _cost(booked, plan, limit, delta)
    return found


def told(found: Mapping[str, Any]) -> str:
    """A `statement` as text."""
    lines = [f"site {found['site']}: {found['rows']} rows, every one as it was written"]
    if found["moved"]:
        lines.append(f"moved away on {found['moved']}; nothing is booked here any more")
    cohort = found["cohort"]
    unit = cohort["unit"] if cohort else "unit"
    if cohort is None:
        lines.append("no cohort yet: nothing was trained here")
    else:
        lines.append(
            f"cohort {cohort['number']}: {cohort['units']} units ({unit}), "
            f"{cohort['images']} images, opened on {cohort['time']} ({cohort['opened']})"
        )
        lines.append(f"spent: {found['spent']['told']}")
        lines.append(
            f"  by the unit that spent most: {found['worst']['told']}; tell nobody "
            "outside: it says whether earlier patients are among these"
        )
        lines += [ADJACENCY] * bool(found["spent"]["epsilon"])
    if found["limit"]:
        left = math.floor(found["left"] * 1000) / 1000
        lines.append(
            f"limit: epsilon {found['limit']:g} per {unit} at delta {found['delta']:g} "
            "over all runs (privacy.epsilon in site.yaml)"
        )
        lines.append(
            f"left: {left:g}; epsilons do not add up, so ask with --for what a run "
            "would cost"
        )
    else:
        lines.append("limit: none set, so no run with privacy is accepted")
    if found["runs"]:
        lines.append("")
        lines.append(
            f"each run alone, {unit}-level at delta {found['delta']:g}, all that it booked:"
        )
        lines += _table(found["runs"])
    if found["for"]:
        lines += ["", *found["for"]["told"]]
    return "\n".join(lines)


def _runs(rows: Sequence[Row], delta: float) -> list[dict[str, Any]]:
    """One entry per run and cohort, in the order in which they began."""
    stages: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if row.kind == "stage":
            key = row.facts["run"], row.facts["cohort"]
            stages.setdefault(key, []).append(row)
    answered = {row.facts["booking"] for row in rows if row.kind == "reply"}
    found = []
    for (run, cohort), booked in stages.items():
        costs = [row.facts["mechanisms"] for row in booked]
        parts = None if None in costs else _mechanisms(costs)
        cost = budget.WITHOUT_DP if parts is None else budget.spent(parts, delta)
        found.append(
            {
                "run": run,
                "cohort": cohort,
                "align": sum(row.facts["stage"] == "align" for row in booked),
                "generate": sum(row.facts["stage"] == "generate" for row in booked),
                "answered": sum(row.number in answered for row in booked),
                "mechanisms": [
                    [one.noise, one.rate, one.steps] for one in merged(parts or ())
                ],
                **_epsilon(cost),
            }
        )
    return found


def _mechanisms(costs: Sequence[Sequence[Sequence[float]]]) -> list[Mechanism]:
    return [
        Mechanism(noise=noise, rate=rate, steps=int(steps))
        for cost in costs
        for noise, rate, steps in cost
    ]


def _epsilon(found: Spent) -> dict[str, Any]:
    bounded = math.isfinite(found.epsilon)
    return {
        "epsilon": found.epsilon if bounded else None,
        "bounded": bounded,
        "accountant": found.accountant,
    }


def _cost(
    booked: budget.History, plan: RunPlan, limit: float, delta: float
) -> dict[str, Any]:
    """What a whole run of `plan` would cost on top of what is booked."""
    if not plan.privacy.enabled:
        fits = not limit
        words = "accepted, as no limit is set" if fits else "refused: a limit is set"
        return {"fits": fits, "told": [f"that run has no DP and no bound: {words}"]}
    whole = PrivacyPlan.of(plan).whole()
    alone, after = budget.spent(whole, delta), budget.total([booked], delta, whole)
    fits = bool(limit) and after.epsilon <= limit
    verdict = "it fits" if fits else "it is refused"
    if not limit:
        verdict += ", as no limit is set"
    first = (
        f"that run alone: epsilon {budget.rounded(alone.epsilon)} for each "
        f"{plan.privacy.unit} (delta {delta:g}, accountant {alone.accountant}, all its "
        "rounds)"
    )
    second = (
        f"with what is spent: epsilon {budget.rounded(after.epsilon)} (delta {delta:g}, "
        f"accountant {after.accountant}): {verdict}"
    )
    lines = [first, second]
    if limit and not fits:
        could = budget.room([booked], delta, whole, limit).told()
        lines.append(f"what would fit: {could}")
    return {
        "fits": fits,
        "alone": _epsilon(alone),
        "after": _epsilon(after),
        "told": lines,
    }


def _table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ("run", "cohort", "align", "generate", "answered", "epsilon")
    body = [
        (
            *(str(run[name]) for name in head[:-1]),
            f"{budget.rounded(run['epsilon'])} ({run['accountant']})"
            if run["bounded"]
            else WITHOUT,
        )
        for run in runs
    ]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True))
        for line in (head, *body)
    ]
