"""Figure of the gate's page: synthetic against held-out images over the same bins."""

from collections.abc import Sequence

from vgmedgen.evaluation.charts import tick_texts, ticks
from vgmedgen.evaluation.markup import Html, tag
from vgmedgen.gate.report import Histogram

WIDE, HIGH, HEAD, FOOT = 560, 140, 18, 22  # px: plot, room above and axis below it
EDGE = 12  # px that the middle of a text keeps from the sides


def binned(
    found: Histogram,
    names: tuple[str, str],
    axis: str,
    *,
    mark: tuple[float, str] | None = None,
) -> Html:
    """Shares of both sets by bin: the first filled, the second as an outline.

    Args:
        found: counts over bins.
        names: of the two sets, for the legend.
        axis: what the values are.
        mark: a value to draw a line at, and what lies beyond it.
    """
    low, high = found.edges[0], found.edges[-1]
    shares = [_shares(counts) for counts in (found.synthetic, found.heldout)]
    top = max(*shares[0], *shares[1]) or 1.0

    def x(value: float) -> float:
        return WIDE * (value - low) / (high - low)

    def outline(share: Sequence[float]) -> str:
        path = f"M0 {HEAD + HIGH}"
        for place, part in enumerate(share):
            level = HEAD + HIGH * (1 - part / top)
            path += f"V{level:.1f}H{x(found.edges[place + 1]):.1f}"
        return f"{path}V{HEAD + HIGH}Z"

    parts = [
        tag("path", d=outline(shares[0]), class_="first"),
        tag("path", d=outline(shares[1]), class_="second"),
        tag("line", class_="zero", x1=0, x2=WIDE, y1=HEAD + HIGH, y2=HEAD + HIGH),
    ]
    marks = ticks(low, high)
    for value, shown in zip(marks, tick_texts(marks), strict=True):
        at = min(max(x(value), EDGE), WIDE - EDGE)
        parts.append(
            tag("text", shown, class_="tick", x=f"{at:.1f}", y=HEAD + HIGH + 16)
        )
    if mark is not None:
        parts += _mark(x(mark[0]), mark[1])
    legend = tag(
        "ul",
        *(
            tag("li", tag("span", class_=f"swatch {kind}"), name)
            for kind, name in zip(("first", "second"), names, strict=True)
            if sum(found.synthetic if kind == "first" else found.heldout)
        ),
        class_="legend",
    )
    chart = tag(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDE} {HEAD + HIGH + FOOT}",
        role="img",
        aria_label=f"{axis}: {' and '.join(names)}",
    )
    return tag("figure", legend, chart, tag("figcaption", axis), class_="twin")


def _mark(at: float, beyond: str) -> list[Html]:
    here = f"{at:.1f}"
    room = at < WIDE * 0.8
    return [
        tag("line", class_="mark", x1=here, x2=here, y1=0, y2=HEAD + HIGH),
        tag(
            "text",
            f"{beyond} \N{RIGHTWARDS ARROW}",
            class_="beyond" if room else "beyond end",
            x=f"{at + (6 if room else -6):.1f}",
            y=11,
        ),
    ]


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]
