"""Who took part in which round of a run, as a grid that stays small."""

from collections import Counter

from server import runs
from server.registry import RoundRecord
from server.standing import ABSENT, TOOK, RunStatus, part_of
from vgmedgen.codes import advice, meaning, short
from vgmedgen.evaluation.markup import Html, size_text, tag

_MOST = 48  # rounds that a grid shows
_ROOMY = 14  # rounds up to which a cell has room for a whole code
_EVERY = 5  # rounds between two numbers over a grid of many
_AHEAD = 4  # rounds to come that a cut grid still shows


def grid(run: RunStatus) -> Html:
    """Site by round: took part, left out under which code, or was not there."""
    window = _window(run)
    if not run.sites or not window:
        return Html()
    by_number = {record.number: record for record in run.records}
    roomy = len(window) <= _ROOMY
    rows = [
        tag(
            "tr",
            tag("th", site, scope="row"),
            *(_cell(run, site, by_number.get(n), n, roomy=roomy) for n in window),
            tag("td", f"{took(run, site)} / {run.round}", class_="num"),
        )
        for site in run.sites
    ]
    caption = "Who took part in which round"
    if window[0] > 1:
        caption += f"; rounds 1 to {window[0] - 1} are in status.json"
    body = tag(
        "table",
        tag("caption", caption),
        tag("thead", _stages(run, window), _numbers(window, by_number)),
        tag("tbody", *rows),
        class_="rounds roomy" if roomy else "rounds",
    )
    scroll = {"class_": "scroll", "role": "region", "tabindex": "0"}
    box = tag("div", body, **scroll, aria_label=caption)
    return tag("div", box, _legend(run, roomy=roomy), class_="latest")


def _stages(run: RunStatus, window: range) -> Html:
    align = sum(n <= run.align_rounds for n in window)
    cells = (("align", align), ("generate", len(window) - align))
    named = (
        tag("th", name if many > 1 else name[0], colspan=many, scope="colgroup")
        for name, many in cells
        if many
    )
    return tag("tr", tag("td"), *named, tag("td"), class_="stages")


def _numbers(window: range, by_number: dict[int, RoundRecord]) -> Html:
    cells = []
    for n in window:
        record = by_number.get(n)
        void = record is not None and not record.counted
        edge = n in {window[0], window[-1]} and len(window) <= _ROOMY
        shown = len(window) <= _ROOMY or n % _EVERY == 0 or n == 1 or edge
        why = f"round {n} did not count: too few sites answered" if void else None
        told: object = tag("del", n) if void else n
        cells.append(tag("th", told if shown or void else "", scope="col", title=why))
    return tag("tr", tag("th", "Site", scope="col"), *cells, tag("th", "In all"))


def _cell(
    run: RunStatus, site: str, record: RoundRecord | None, n: int, *, roomy: bool
) -> Html:
    if record is None:
        now = n == run.round + 1 and run.state == runs.RUNNING
        return tag("td", class_="now" if now else "ahead")
    part, where = part_of(record, site), f"round {n}, {site}: "
    if part == TOOK:
        sent = f"{TOOK}, sent {size_text(record.bytes_from.get(site))}"
        kind, shown, title = "took", "✓", sent
        if site in record.bounded:
            times = f"{record.bounded[site]:g} times the size of the others'"
            kind, shown = "took bounded", "≤"
            title = f"{sent}; its update was {times}, and was held to the bound"
    elif part == ABSENT:
        kind, shown, title = "absent", "·", ABSENT
    else:
        kind, shown = "left", part if roomy else short(part)
        title = f"left out, {part}: {meaning(part)}"
    return tag("td", shown, class_=kind, title=where + title)


def _legend(run: RunStatus, *, roomy: bool) -> Html:
    many: Counter[str] = Counter(
        code for record in run.records for code in record.left_out.values()
    )
    marks = [("took", "✓", "took part"), ("absent", "·", "was not there")]
    if any(record.bounded for record in run.records):
        marks.append(("took bounded", "≤", "took part, its update held to the bound"))
    if run.state == runs.RUNNING:
        marks.append(("now", "", "under way"))
    entries = [
        tag("li", tag("span", mark, class_=f"mark {kind}"), told)
        for kind, mark, told in marks
    ]
    for code, count in sorted(many.items()):
        told = "; ".join(filter(None, (f"{count} in all", advice(code))))
        entries.append(
            tag(
                "li",
                tag("span", code if roomy else short(code), class_="mark left"),
                "" if roomy else tag("b", code, " "),
                meaning(code),
                tag("span", f" ({told})", class_="none"),
                class_="code",
            )
        )
    return tag("ul", *entries, class_="legend")


def took(run: RunStatus, site: str) -> int:
    """Rounds that a site took part in."""
    return sum(site in record.sites for record in run.records)


def _window(run: RunStatus) -> range:
    most = max(run.rounds, run.round)
    last = min(most, max(run.round + _AHEAD, _MOST))
    return range(max(1, last - _MOST + 1), last + 1)
