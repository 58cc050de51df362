"""Loss curves as small inline SVG charts that can be compared with one another."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vgmedgen.evaluation.charts import tick_texts, ticks
from vgmedgen.evaluation.findings import Report, sites_of
from vgmedgen.evaluation.markup import (
    Html,
    brief,
    join,
    known,
    note,
    plain,
    section,
    tag,
)

STAGES = {
    "prior": "Visual prior (stage align)",
    "mapper": "Text mapper (stage align)",
    "generate": "Image model (stage generate)",
}
_POINTS = 120  # a curve is averaged down to so many points
_FEW = 16  # points below which each is marked and none is smoothed
_NAME = 26  # characters of a chart's title
_WIDTH, _HEIGHT = 260.0, 156.0  # of one chart, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 42.0, 10.0, 22.0, 34.0  # margins that hold the axes


def thin(points: Sequence[Sequence[Any]]) -> list[tuple[float, float]]:
    """Drop what is no number and average neighbours down to at most 120 points."""
    good = [(float(x), float(y)) for x, y in points if known(x) and known(y)]
    width = math.ceil(len(good) / _POINTS) or 1
    groups = [good[start : start + width] for start in range(0, len(good), width)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    half = len(points) // 16
    windows = (
        (x, [y for _, y in points[max(0, index - half) : index + half + 1]])
        for index, (x, _) in enumerate(points)
    )
    return [(x, sum(ys) / len(ys)) for x, ys in windows]


def line_chart(
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    across: str,
    up: str,
    reach: tuple[float, float, float, float],
    dots: bool = False,
) -> Html:
    """One small curve; several with the same reach can be compared by eye.

    Args:
        points: (across, up) in order; at least one.
        title: stands above the curve.
        across: name of the horizontal axis, with its unit.
        up: name of the vertical axis, with its unit.
        reach: lowest and highest across, lowest and highest up, shared among charts.
        dots: mark each point rather than smooth (few points).
    """
    x0, x1, y0, y1 = reach
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = _LEFT + wide * ((point[0] - x0) / (x1 - x0) if x1 > x0 else 0.5)
        y = _TOP + tall * (1 - ((point[1] - y0) / (y1 - y0) if y1 > y0 else 0.5))
        return x, y

    def path(line: Sequence[tuple[float, float]], kind: str) -> Html:
        spots = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, line))
        return tag("polyline", points=spots, class_=kind)

    parts = []
    marks = ticks(y0, y1)
    for value, shown in zip(marks, tick_texts(marks), strict=True):
        y = round(place((x0, value))[1], 1)
        parts.append(
            tag("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y)
        )
        parts.append(tag("text", shown, class_="end", x=_LEFT - 5, y=y + 3.5))
    for value in ticks(x0, x1):
        if dots and value != int(value):
            continue
        x = round(place((value, y0))[0], 1)
        parts.append(tag("text", f"{value:g}", class_="tick", x=x, y=_HEIGHT - 19))
    parts.append(tag("text", up, x="2", y="11"))
    parts.append(tag("text", across, class_="axis", x=_LEFT + wide / 2, y=_HEIGHT - 4))
    if dots or len(points) < _FEW:
        parts.append(path(points, "curve"))
        spots = (place(point) for point in points)
        parts += [
            tag("circle", class_="spot", cx=f"{x:.1f}", cy=f"{y:.1f}", r="3")
            for x, y in spots
        ]
    else:
        parts += [path(points, "raw"), path(_smooth(points), "curve")]
    first, last = plain(points[0][1]), plain(points[-1][1])
    label = f"{title}: {up} goes from {first} to {last}"
    return tag(
        "figure",
        tag("figcaption", brief(title, _NAME)),
        tag(
            "svg",
            join(parts),
            viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
            role="img",
            aria_label=label,
        ),
        class_="small",
    )


def curves(report: Report) -> Html:
    """Training loss per stage and site, and held-out loss after each round."""
    found = report.get("loss_curves") or {}
    names = [name for name in sites_of(report) if name in found]
    parts = []
    for stage in _stages(found):
        lines = {name: thin(found[name].get(stage) or ()) for name in names}
        parts.append(_multiples(STAGES.get(stage, stage), lines, "optimiser step"))
    after = {
        name: [
            (float(entry["number"]), float(entry["heldout_loss"][name]))
            for entry in report.get("rounds") or ()
            if known((entry.get("heldout_loss") or {}).get(name))
        ]
        for name in sites_of(report)
    }
    parts.append(
        _multiples("Held-out loss after each round", after, "round", dots=True)
    )
    if not any(parts):
        return Html()
    return section(
        "curves",
        "Losses over the run",
        note(
            f"Thin: the loss, averaged down to {_POINTS} points where there are "
            "more. Thick: its running mean. Charts under one heading share their "
            "axes; losses under different headings cannot be compared. Losses have "
            "no unit."
        ),
        *parts,
    )


def _stages(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    there = dict.fromkeys(stage for by_stage in found.values() for stage in by_stage)
    return [*(s for s in STAGES if s in there), *(s for s in there if s not in STAGES)]


def _multiples(
    title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    across: str,
    *,
    dots: bool = False,
) -> Html:
    points = [point for line in lines.values() for point in line]
    if not points:
        return Html()
    xs, ys = zip(*points, strict=True)
    slack = (max(ys) - min(ys)) * 0.06 or abs(max(ys)) * 0.1 or 1.0
    # Curves that start near step 0 get an axis that starts there.
    start = 0.0 if not dots and min(xs) < max(xs) / 20 else min(xs)
    reach = (start, max(xs), min(ys) - slack, max(ys) + slack)
    charts = (
        line_chart(line, title=name, across=across, up="loss", reach=reach, dots=dots)
        for name, line in lines.items()
        if line
    )
    return join((tag("h3", title), tag("div", *charts, class_="multiples")))
