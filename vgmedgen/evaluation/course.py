"""The parts of a report that say how the run went: rounds, traffic, time."""

from collections.abc import Mapping, Sequence
from typing import Any

from vgmedgen.codes import meaning
from vgmedgen.evaluation.charts import bar
from vgmedgen.evaluation.findings import Report, listing, sites_of
from vgmedgen.evaluation.markup import (
    DASH,
    Html,
    duration,
    known,
    mean,
    note,
    number,
    section,
    size,
    table,
    tag,
)

_NAMED = 3  # sites of a round that are named rather than counted
_OPEN = 24  # rows up to which the table of every round and site starts unfolded


def rounds(report: Report) -> Html:
    """One row per round, traffic per site, and every round at every site."""
    entries = report.get("rounds") or ()
    if not entries:
        return Html()
    everybody = len(sites_of(report))
    rows = [
        (
            entry.get("number", DASH),
            entry.get("stage") or DASH,
            "yes" if entry.get("counted", True) else tag("em", "no", class_="bad"),
            _present(entry.get("sites") or (), everybody),
            _left_out(entry.get("left_out") or {}, entry.get("bounded") or {}),
            size(_sum(entry.get("bytes_to"))),
            size(_sum(entry.get("bytes_from"))),
            number(mean((entry.get("heldout_loss") or {}).values())),
            duration(entry.get("seconds")),
        )
        for entry in entries
    ]
    used = sorted(
        {code for e in entries for code in (e.get("left_out") or {}).values()}
    )
    legend = "; ".join(f"{code}: {meaning(code)}" for code in used)
    return section(
        "rounds",
        "Round by round",
        table(
            "Rounds: who took part, who was left out and why, traffic of all sites "
            "together, mean held-out loss (no unit), duration",
            (
                "Round",
                "Stage",
                "Counted",
                "Took part",
                "Left out",
                "To sites",
                "From sites",
                "Held-out loss",
                "Duration",
            ),
            rows,
            words=(0, 1, 2, 3, 4),
            foot=(
                "Total",
                *("",) * 4,
                size(_sum({i: _sum(e.get("bytes_to")) for i, e in enumerate(entries)})),
                size(
                    _sum({i: _sum(e.get("bytes_from")) for i, e in enumerate(entries)})
                ),
                "",
                duration(_sum({i: e.get("seconds") for i, e in enumerate(entries)})),
            ),
        ),
        note(legend.replace(".;", ";")) if legend else "",
        _traffic(entries, sites_of(report)),
        _every(entries),
    )


def _sum(values: Mapping[Any, Any] | None) -> float | None:
    found = [value for value in (values or {}).values() if known(value)]
    return sum(found) if found else None


def _present(names: Sequence[str], everybody: int) -> str:
    if not names:
        return "none"
    if len(names) == everybody:
        return f"all {everybody}" if everybody > 1 else names[0]
    shown = f"{len(names)} of {everybody}"
    return f"{shown}: {listing(names)}" if len(names) <= _NAMED else shown


def _left_out(left: Mapping[str, str], bounded: Mapping[str, float]) -> str:
    """Who was left out under which code, and whose update was held to the bound."""
    by_code: dict[str, list[str]] = {}
    for site, code in left.items():
        by_code.setdefault(code, []).append(site)
    told = [f"{code}: {', '.join(by_code[code])}" for code in by_code]
    told += [f"held to the bound: {s} ({n:g} times)" for s, n in bounded.items()]
    return "; ".join(told) or DASH


def _traffic(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Html:
    rows = []
    for name in names:
        ways = [
            [e[key][name] for e in entries if known((e.get(key) or {}).get(name))]
            for key in ("bytes_to", "bytes_from")
        ]
        if any(ways):
            cells = [cell for way in ways for cell in (size(sum(way)), size(mean(way)))]
            taken = sum(name in (entry.get("sites") or ()) for entry in entries)
            rows.append((name, number(taken, 0), *cells))
    if not rows:
        return Html()
    return table(
        "Bytes that crossed each site's wall over the whole run (1 MB is 1 000 000 "
        "bytes)",
        (
            "Site",
            "Rounds taken part",
            "To the site",
            "per round",
            "From the site",
            "per round",
        ),
        rows,
    )


def _every(entries: Sequence[Mapping[str, Any]]) -> Html:
    keys = ("bytes_to", "bytes_from", "loss", "heldout_loss")
    rows = []
    for entry in entries:
        left = entry.get("left_out") or {}
        for name in dict.fromkeys([*(entry.get("sites") or ()), *left]):
            values = [(entry.get(key) or {}).get(name) for key in keys]
            rows.append(
                (
                    entry.get("number", DASH),
                    name,
                    f"no ({left[name]})" if name in left else "yes",
                    size(values[0]),
                    size(values[1]),
                    number(values[2]),
                    number(values[3]),
                )
            )
    body = table(
        "Every round at every site (losses have no unit)",
        (
            "Round",
            "Site",
            "Took part",
            "To the site",
            "From the site",
            "Training loss",
            "Held-out loss",
        ),
        rows,
        words=(0, 1, 2),
    )
    unfolded = "open" if len(rows) <= _OPEN else None
    return tag(
        "details", tag("summary", "Every round at every site"), body, open=unfolded
    )


def seconds(report: Report) -> Html:
    """How long each phase of the run took."""
    found = {k: v for k, v in (report.get("seconds") or {}).items() if known(v)}
    if not found:
        return Html()
    top = max(found.values())
    rows = [
        (phase.replace("_", " "), duration(value), bar(value, top))
        for phase, value in found.items()
    ]
    return section(
        "time",
        "Where the time went",
        table(
            "Wall-clock time per phase",
            ("Phase", "Duration", "Beside the longest"),
            rows,
            words=(0, 2),
        ),
    )
