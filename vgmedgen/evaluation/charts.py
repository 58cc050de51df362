"""Charts as inline SVG: drawn by the page's own style, legible in print and in the dark.

Horizontal charts place things in percent, so text keeps its size on a narrow screen.
Series differ in shape as well as in colour (Okabe and Ito's palette in the style sheet).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vgmedgen.evaluation.markup import Html, join, known, plain, tag

MODELS = {
    "base": "Base (before)",
    "federated": "Federated",
    "local": "Local-only",
    "pooled": "Pooled",
}
_ROW = 30  # px, height of one row of a dot plot
_EDGE = 3.0  # percent kept free at either end of a horizontal axis
_POINTS = 120  # a curve is averaged down to so many points
_WIDTH, _HEIGHT = 260.0, 156.0  # of one small chart, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 42.0, 10.0, 20.0, 34.0


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values that lie within [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _tick_text(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def bar(value: Any, top: float) -> Html:
    """A bar whose length is the share of `value` in `top`."""
    share = 100 * value / top if known(value) and top > 0 else 0.0
    return tag(
        "svg",
        tag("rect", class_="track", width="100%", height="10", rx="2"),
        tag("rect", class_="fill", width=f"{share:.1f}%", height="10", rx="2"),
        class_="bar",
        aria_hidden="true",
    )


def _marker(model: str, x: str, y: float) -> Html:
    shapes = {
        "base": tag("circle", r="5"),
        "federated": tag("circle", r="6"),
        "local": tag("rect", x="-5", y="-5", width="10", height="10"),
        "pooled": tag("path", d="M0-7 7 0 0 7-7 0Z"),
    }
    return tag(
        "svg", shapes[model], x=x, y=f"{y:g}", overflow="visible", class_=f"dot {model}"
    )


def legend(models: Sequence[str]) -> Html:
    """The shapes of a dot plot and what they stand for."""
    entries = (
        tag(
            "li",
            tag("svg", _marker(model, "9", 9), width="18", height="18", aria_hidden="true"),
            MODELS[model],
        )
        for model in models
    )
    return tag("ul", *entries, class_="legend")


def dot_plot(
    rows: Mapping[str, Mapping[str, Any]],
    *,
    axis: str,
    label: str,
    spreads: Mapping[str, Mapping[str, Any]] | None = None,
    zero: bool = False,
) -> Html:
    """One row per site, one mark per model; whiskers where a spread is known.

    Args:
        rows: site -> model of `MODELS` -> value; what is no number is not drawn.
        axis: what the horizontal axis shows, with its unit.
        label: what the chart shows, for those who cannot see it.
        spreads: half length of the whiskers, shaped as `rows`.
        zero: draw a line at 0.

    Returns:
        The chart with its legend, or nothing where there is no number at all.
    """
    whiskers = spreads or {}
    reach: list[float] = [0.0] if zero else []
    for site, values in rows.items():
        for model, value in values.items():
            if model in MODELS and known(value):
                half = whiskers.get(site, {}).get(model)
                half = half if known(half) else 0.0
                reach += [value - half, value + half]
    if not reach or (zero and len(reach) == 1):
        return Html()
    low, high = min(reach), max(reach)
    slack = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    low, high = low - slack, high + slack

    def x(value: float) -> str:
        return f"{_EDGE + (100 - 2 * _EDGE) * (value - low) / (high - low):.2f}%"

    foot = len(rows) * _ROW
    parts = [
        tag("rect", class_="band", y=f"{index * _ROW}", width="100%", height=f"{_ROW}")
        for index in range(0, len(rows), 2)
    ]
    for value in ticks(low, high):
        kind = "zero" if zero and value == 0 else "grid"
        parts.append(tag("line", class_=kind, x1=x(value), x2=x(value), y1="0", y2=foot))
        parts.append(tag("text", _tick_text(value), class_="tick", x=x(value), y=foot + 16))
    for index, (site, values) in enumerate(rows.items()):
        parts += _row(index * _ROW + _ROW / 2, values, whiskers.get(site, {}), x)
    parts.append(tag("text", axis, class_="axis", x="50%", y=foot + 36))
    names = (tag("div", tag("span", site), title=site) for site in rows)
    present = [
        model
        for model in MODELS
        if any(known(values.get(model)) for values in rows.values())
    ]
    chart = tag(
        "svg", *parts, width="100%", height=foot + 44, role="img", aria_label=label
    )
    return tag(
        "figure",
        legend(present),
        tag("div", tag("div", *names, class_="names"), chart, class_="dots"),
        class_="plot",
    )


def _row(y: float, values: Mapping[str, Any], spread: Mapping[str, Any], x: Any) -> list[Html]:
    parts = []
    base, federated = values.get("base"), values.get("federated")
    if known(base) and known(federated):
        parts.append(tag("line", class_="move", x1=x(base), x2=x(federated), y1=y, y2=y))
    for model in MODELS:
        value, half = values.get(model), spread.get(model)
        if known(value) and known(half):
            ends = x(value - half), x(value + half)
            kind = f"whisker {model}"
            parts.append(tag("line", class_=kind, x1=ends[0], x2=ends[1], y1=y, y2=y))
            parts += [
                tag("line", class_=kind, x1=end, x2=end, y1=y - 5, y2=y + 5) for end in ends
            ]
    parts += [_marker(m, x(values[m]), y) for m in reversed(MODELS) if known(values.get(m))]
    return parts


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
    for value in ticks(y0, y1, 4):
        y = round(place((x0, value))[1], 1)
        parts.append(tag("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y))
        parts.append(tag("text", _tick_text(value), class_="end", x=_LEFT - 5, y=y + 3.5))
    for value in ticks(x0, x1, 4):
        if dots and value != int(value):
            continue
        x = round(place((value, y0))[0], 1)
        parts.append(tag("text", _tick_text(value), class_="tick", x=x, y=_HEIGHT - 19))
    parts.append(tag("text", up, x="2", y="11"))
    parts.append(tag("text", across, class_="axis", x=_LEFT + wide / 2, y=_HEIGHT - 4))
    if dots or len(points) < 16:
        parts.append(path(points, "curve"))
        spots = (place(point) for point in points)
        parts += [tag("circle", class_="spot", cx=f"{x:.1f}", cy=f"{y:.1f}", r="3") for x, y in spots]
    else:
        parts += [path(points, "raw"), path(_smooth(points), "curve")]
    first, last = plain(points[0][1]), plain(points[-1][1])
    label = f"{title}: {up} goes from {first} to {last}"
    return tag(
        "figure",
        tag("figcaption", title),
        tag("svg", join(parts), viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", role="img", aria_label=label),
        class_="small",
    )
