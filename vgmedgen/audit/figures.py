"""Figures of the audit's page: two distributions against each other, and pictures."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vgmedgen.data.images import as_uint8
from vgmedgen.errors import DataError
from vgmedgen.evaluation.charts import tick_texts, ticks
from vgmedgen.evaluation.gallery import inline
from vgmedgen.evaluation.markup import Html, tag

WIDE, HIGH, FOOT = 560, 130, 22  # px of a figure, and of its axis below
BINS = 32
ENLARGED = 192  # px, side of a picture


def two_histograms(
    first: Sequence[float],
    second: Sequence[float],
    names: tuple[str, str],
    axis: str,
    *,
    mark: float | None = None,
) -> Html:
    """Shares of two sets of values over the same bins.

    Args:
        first: drawn filled.
        second: drawn as an outline.
        names: of both, for the legend.
        axis: what the values are.
        mark: a value to draw a line at.
    """
    values = np.array([*first, *second])
    low, high = np.quantile(values, [0.005, 0.995])
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = [
        np.histogram(np.clip(side, low, high), edges)[0] / max(1, len(side))
        for side in (first, second)
    ]
    top = max(share.max() for share in shares)

    def x(value: float) -> float:
        return float(WIDE * (value - low) / (high - low))

    def outline(share: NDArray[np.float64]) -> str:
        path = f"M0 {HIGH}"
        for place, part in enumerate(share):
            level = HIGH - 0.95 * HIGH * part / top
            path += f"V{level:.1f}H{x(edges[place + 1]):.1f}"
        return f"{path}V{HIGH}Z"

    marks = ticks(low, high)
    parts = [
        tag("path", d=outline(shares[0]), class_="first"),
        tag("path", d=outline(shares[1]), class_="second"),
        tag("line", class_="zero", x1=0, x2=WIDE, y1=HIGH, y2=HIGH),
    ]
    for value, shown in zip(marks, tick_texts(marks), strict=True):
        at = min(max(x(value), 12), WIDE - 12)
        parts.append(tag("text", shown, class_="tick", x=f"{at:.1f}", y=HIGH + 15))
    if mark is not None:
        here = f"{x(mark):.1f}"
        parts.append(tag("line", class_="mark", x1=here, x2=here, y1=0, y2=HIGH))
    legend = tag(
        "ul",
        tag("li", tag("span", class_="swatch first"), names[0]),
        tag("li", tag("span", class_="swatch second"), names[1]),
        class_="legend",
    )
    chart = tag(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDE} {HIGH + FOOT}",
        role="img",
        aria_label=f"{axis}: {names[0]} and {names[1]}",
    )
    return tag("figure", legend, chart, tag("figcaption", axis), class_="twin")


def picture(pixels: Tensor | None, kind: str, told: str) -> Html:
    """An image (3, H, W) in [-1, 1] in a frame, with words below it."""
    if pixels is None:
        content = tag("span", "no DP in this run", class_="empty")
    else:
        drawn = Image.fromarray(as_uint8(pixels).movedim(0, -1).numpy())
        large = drawn.resize((ENLARGED, ENLARGED), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        large.save(stream, "PNG", optimize=True)
        encoded = base64.b64encode(stream.getvalue()).decode("ascii")
        source = f"data:image/png;base64,{encoded}"
        content = tag("img", src=source, alt=told, width="144", height="144")
    frame = tag("div", content, tag("span", kind, class_="badge"), class_="frame")
    return tag("div", frame, tag("p", told, class_="under"))


def file_picture(path: Path, *, synthetic: bool) -> Html:
    """An image file in a frame; a hole where it cannot be read."""
    kind = "synthetic" if synthetic else "real"
    try:
        source, _ = inline(path, synthetic=synthetic)
    except DataError:
        content = tag("span", "image could not be read", class_="empty")
    else:
        content = tag("img", src=source, alt=f"{kind} image", width="144", height="144")
    badge = tag("span", kind, class_="badge")
    return tag("div", content, badge, class_=f"frame {kind}")
