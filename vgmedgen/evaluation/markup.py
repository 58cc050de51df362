"""HTML that is escaped by construction, and numbers as a reader wants them.

Whatever is not `Html` is escaped when it enters an element, so that a caption, a file
name or a site name can never become markup.
"""

import html
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

_WIDE = 8  # columns from which a table is set smaller on paper
_WORD = 18  # characters of a name that may be broken within a word
_SHORT = 24  # characters of a cell that stays on one line
_TENTHS, _MINUTE, _HOUR = 10, 60, 3600  # seconds
DASH = "\N{EN DASH}"  # stands for a number that was not measured
MINUS = "\N{MINUS SIGN}"  # as wide as a digit, unlike the hyphen
_VOID = frozenset({"br", "col", "img", "meta"})


class Html(str):
    """Markup that goes onto a page as it is."""

    __slots__ = ()


def text(value: object) -> Html:
    """Escape `value` unless it is markup already."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(parts: Iterable[object]) -> Html:
    """Concatenate parts, each escaped unless it is markup."""
    return Html("".join(text(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """One element.

    Args:
        name: of the element.
        *children: what it holds; escaped unless markup.
        **attributes: `class_` becomes class, `stroke_width` stroke-width; None is
            left out.
    """
    pairs = "".join(
        f' {key.strip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{pairs}>")
    return Html(f"<{name}{pairs}>{join(children)}</{name}>")


def known(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def mean(values: Iterable[object]) -> float | None:
    """Mean of the numbers among `values`; None where there is none."""
    found = [float(value) for value in values if known(value)]
    return sum(found) / len(found) if found else None


def plain(value: object, places: int = 4, *, sign: bool = False) -> str:
    """A number as text with thousands apart, or a dash."""
    if not known(value):
        return DASH
    shown = f"{value:+,.{places}f}" if sign else f"{value:,.{places}f}"
    if float(shown.replace(",", "")) == 0:
        shown = shown.lstrip("+-")
    return shown.replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", MINUS)


def number(value: object, places: int = 4, *, sign: bool = False) -> Html:
    """A number rounded for the eye that carries its exact value in the markup."""
    if not known(value):
        return tag("span", DASH, class_="none", title="not measured")
    return tag(
        "data", plain(value, places, sign=sign), value=repr(value), title=repr(value)
    )


def size_text(count: object) -> str:
    """Bytes in the unit that fits: 1 kB is 1000 bytes."""
    if not known(count):
        return DASH
    for unit, scale, places in (("GB", 1e9, 2), ("MB", 1e6, 2), ("kB", 1e3, 0)):
        if count >= scale:
            return f"{plain(count / scale, places)} {unit}"
    return f"{plain(count, 0)} B"


def size(count: object) -> Html:
    """Bytes in the unit that fits, with the exact count in the markup."""
    if not known(count):
        return number(None)
    return tag("data", size_text(count), value=repr(count), title=f"{count} bytes")


def duration(seconds: object) -> Html:
    """Seconds as s, min or h, with the exact value in the markup."""
    if not known(seconds):
        return number(None)
    if seconds < _TENTHS:
        shown = f"{seconds:.1f} s"
    elif seconds < _MINUTE:
        shown = f"{seconds:.0f} s"
    elif seconds < _HOUR:
        shown = f"{int(seconds) // _MINUTE} min {int(seconds) % _MINUTE:02d} s"
    else:
        minutes = int(seconds) // _MINUTE
        shown = f"{minutes // 60} h {minutes % 60:02d} min"
    return tag("data", shown, value=repr(seconds), title=f"{seconds!r} seconds")


def table(
    caption: str,
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    words: Collection[int] = (0,),
    foot: Sequence[object] = (),
) -> Html:
    """A table with a caption in a box that scrolls sideways on a narrow screen.

    Args:
        caption: what the table shows, with units; read out by screen readers.
        head: column heads.
        rows: cells; the first one heads its row. A cell that is a whole `td` is kept.
        words: columns that hold words rather than numbers.
        foot: cells of a closing row, such as means.
    """

    def cell(column: int, value: object) -> Html:
        if isinstance(value, Html) and value.startswith("<td"):
            return value
        if column == 0:
            broken = "long" if longest_word(value) > _WORD else None
            return tag("th", value, scope="row", class_=broken)
        if column not in words:
            return tag("td", value, class_="num")
        return tag("td", value, class_="short" if len(str(value)) <= _SHORT else None)

    def line(cells: Sequence[object]) -> Html:
        return tag("tr", *(cell(column, value) for column, value in enumerate(cells)))

    heads = (
        tag("th", value, scope="col", class_=None if column in words else "num")
        for column, value in enumerate(head)
    )
    wide = "wide" if len(head) > _WIDE else None
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", *heads)),
            tag("tbody", *(line(cells) for cells in rows)),
            tag("tfoot", line(foot)) if foot else "",
            class_=wide,
        ),
        class_="scroll",
        role="region",
        tabindex="0",
        aria_label=caption,
    )


def longest_word(value: object) -> int:
    """Characters of the longest word, beyond which a narrow column has to break it."""
    return max((len(word) for word in str(value).split()), default=0)


def note(*children: object) -> Html:
    """A paragraph that explains what stands above or below it."""
    return tag("p", *children, class_="note")


def brief(name: str, limit: int = 20) -> Html:
    """A name cut to `limit` characters, whole in its tooltip."""
    if len(name) <= limit:
        return text(name)
    return tag("abbr", f"{name[: limit - 1].rstrip()}…", title=name)


def verdict_style(own: Path) -> str:
    """Style of a page that begins with a verdict: the report's, and rules of its own."""
    shared = (Path(__file__).with_name(name) for name in ("report.css", "verdict.css"))
    return "".join(path.read_text("utf-8") for path in (*shared, own))


def document(title: str, style: str, *body: object) -> str:
    """A whole page that needs no other file."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # The page fetches nothing and runs nothing, whatever a caption holds.
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; img-src data:; style-src 'unsafe-inline'",
        ),
        tag("title", title),
        tag("style", Html(style)),
    )
    page = tag("html", head, tag("body", *body), lang="en")
    return f"<!doctype html>\n{page}\n"


def section(anchor: str, title: str, *children: object) -> Html:
    """A titled part of the page that the list of contents can point to."""
    return tag("section", tag("h2", title), *children, id=anchor)


def glossary(meanings: Mapping[str, str]) -> Html:
    """What the words of a page mean, at its end."""
    terms = (
        tag("div", tag("dt", term), tag("dd", meaning))
        for term, meaning in meanings.items()
    )
    return section(
        "glossary", "How to read this page", tag("dl", *terms, class_="terms")
    )
