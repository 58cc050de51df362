"""How the runs stand that asked something of a site."""

from collections.abc import Sequence
from pathlib import Path

from client.approvals import APPROVED, Approvals
from client.turns import Turns
from vgmedgen.config.load import plan_from_json
from vgmedgen.errors import ConfigError


def run_rows(folder: Path) -> list[dict[str, str]]:
    """Every run that asked something of a site: run, coordinator, state, rounds, epsilon.

    Raises:
        StateError: if a file of the site cannot be read.
    """
    approvals, turns = Approvals(folder), Turns(folder)
    rounds = turns.rounds()
    rows = []
    for run in sorted({*approvals.runs(), *rounds}):
        found = approvals.of(run)
        newest = found.asks[-1].said if found.asks else {}
        state = found.state if found.asks or found.decisions else APPROVED
        if state == APPROVED and run in rounds:
            state = "ended" if turns.ended(run) else "serving"
        plan = newest.get("plan") or _trained_plan(folder, run)
        rows.append(
            {
                "run": run,
                "coordinator": newest.get("coordinator", "")[:16] or "-",
                "state": state,
                "rounds": str(rounds.get(run, 0)),
                "epsilon": _epsilon(plan) if plan else "-",
            }
        )
    return rows


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of words in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(word.ljust(n) for word, n in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _trained_plan(folder: Path, run: str) -> str:
    path = folder / "runs" / run / "plan.json"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _epsilon(text: str) -> str:
    try:
        ask = plan_from_json(text).privacy
    except ConfigError:
        return "unreadable"
    if not ask.enabled:
        return "without DP"
    return f"{ask.epsilon:g} per {ask.unit}, delta {ask.delta:g}"
