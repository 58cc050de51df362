"""Bars and dot plots as inline SVG, drawn by the page's own style.

Horizontal charts place things in percent, so text keeps its size on a narrow screen.
Series differ in shape as well as in colour (Okabe and Ito's palette, in the style).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vgmedgen.evaluation.markup import MINUS, Html, known, tag

MODELS = {
    "base": "Base (before)",
    "federated": "Federated",
    "without_dp": "Without DP",
    "local": "Local-only",
    "pooled": "Pooled",
}
_ROW = 30  # px, height of one row of a dot plot
_EDGE = 3.0  # percent kept free at either end of a horizontal axis


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


def tick_texts(values: Sequence[float]) -> list[str]:
    """Ticks as text with as many decimals as any of them needs."""
    shortest = [f"{value:g}" for value in values]
    places = max((len(s.partition(".")[2]) for s in shortest), default=0)
    if any("e" in shown for shown in shortest):
        return [shown.replace("-", MINUS) for shown in shortest]
    return [f"{value:.{places}f}".replace("-", MINUS) for value in values]


def bar(value: object, top: float) -> Html:
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
        "without_dp": tag("path", d="M0-6 6 5-6 5Z"),
    }
    return tag(
        "svg", shapes[model], x=x, y=f"{y:g}", overflow="visible", class_=f"dot {model}"
    )


def legend(models: Sequence[str]) -> Html:
    """The shapes of a dot plot and what they stand for."""
    entries = (
        tag(
            "li",
            tag(
                "svg",
                _marker(model, "9", 9),
                width="18",
                height="18",
                aria_hidden="true",
            ),
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
        zero: draw a line at 0, and none from base to federated.

    Returns:
        The chart with its legend, or nothing where there is no number at all.
    """
    whiskers = spreads or {}
    reach = _reach(rows, whiskers)
    if not reach:
        return Html()
    low, high = min(reach), max(reach)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    slack = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    low, high = low - slack, high + slack

    def x(value: float) -> str:
        return f"{_EDGE + (100 - 2 * _EDGE) * (value - low) / (high - low):.2f}%"

    foot = len(rows) * _ROW
    parts = [
        tag("rect", class_="band", y=index * _ROW, width="100%", height=_ROW)
        for index in range(0, len(rows), 2)
    ]
    marks = ticks(low, high)
    for value, shown in zip(marks, tick_texts(marks), strict=True):
        at, kind = x(value), "zero" if zero and value == 0 else "grid"
        parts.append(tag("line", class_=kind, x1=at, x2=at, y1=0, y2=foot))
        parts.append(tag("text", shown, class_="tick", x=at, y=foot + 16))
    for index, (site, values) in enumerate(rows.items()):
        y = index * _ROW + _ROW / 2
        if not zero:
            parts += _move(y, values, x)
        parts += _row(y, values, whiskers.get(site) or {}, x)
    names = (tag("div", tag("span", site), title=site) for site in rows)
    present = [m for m in MODELS if any(known(v.get(m)) for v in rows.values())]
    height = foot + 24
    chart = tag(
        "svg", *parts, width="100%", height=height, role="img", aria_label=label
    )
    return tag(
        "figure",
        legend(present),
        tag("div", tag("div", *names, class_="names"), chart, class_="dots"),
        tag("figcaption", axis),
        class_="plot",
    )


def _reach(
    rows: Mapping[str, Mapping[str, Any]], whiskers: Mapping[str, Mapping[str, Any]]
) -> list[float]:
    ends: list[float] = []
    for site, values in rows.items():
        for model in MODELS:
            value, half = values.get(model), (whiskers.get(site) or {}).get(model)
            if known(value):
                half = half if known(half) else 0.0
                ends += [value - half, value + half]
    return ends


def _move(y: float, values: Mapping[str, Any], x: Callable[[float], str]) -> list[Html]:
    base, federated = values.get("base"), values.get("federated")
    if not known(base) or not known(federated):
        return []
    return [tag("line", class_="move", x1=x(base), x2=x(federated), y1=y, y2=y)]


def _row(
    y: float,
    values: Mapping[str, Any],
    spread: Mapping[str, Any],
    x: Callable[[float], str],
) -> list[Html]:
    parts = []
    for model in MODELS:
        value, half = values.get(model), spread.get(model)
        if known(value) and known(half):
            ends = x(value - half), x(value + half)
            kind = f"whisker {model}"
            parts.append(tag("line", class_=kind, x1=ends[0], x2=ends[1], y1=y, y2=y))
            parts += [
                tag("line", class_=kind, x1=end, x2=end, y1=y - 5, y2=y + 5)
                for end in ends
            ]
    parts += [
        _marker(m, x(values[m]), y) for m in reversed(MODELS) if known(values.get(m))
    ]
    return parts
