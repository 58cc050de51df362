"""The state of a coordinator as a terminal shows it; `server.live` keeps it moving."""

from collections import Counter
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from server import runs
from server.registry import RoundRecord
from server.standing import (
    ABSENT,
    TOOK,
    UNKNOWN,
    RunStatus,
    heldout_of,
    loss_of,
    part_of,
    spent_of,
)
from server.status import NodeStatus, Status, notes
from server.words import ago, clean, how_long
from vgmedgen.codes import advice, meaning
from vgmedgen.evaluation.markup import DASH, plain, size_text

_COLOURS = {
    runs.QUEUED: "cyan",
    runs.RUNNING: "green",
    runs.FINISHED: "blue",
    runs.FAILED: "red",
    runs.STOPPED: "yellow",
    UNKNOWN: "red",
}
_MARKS = {TOOK: ("■", "green"), ABSENT: ("·", "dim")}
_LEFT_OUT = ("✕", "yellow")
_BOUNDED = ("▣", "yellow")
_NEXT = ("▫", "cyan")
_SHOWN = 6  # of the latest rounds that are told in full
_OLDER = 8  # runs that are told in one line
_ASIDE = 30  # characters beside the cells of a grid, for how often what happened
_BAR = 40  # characters of a bar of progress


def render(status: Status) -> RenderableType:
    """Everything: server, warnings, nodes, the runs under way in full, others briefly."""
    parts: list[RenderableType] = [_head(status)]
    parts += [Text(f"! {clean(line)}", "yellow") for line in status.warnings]
    parts += [Text(), _nodes(status)]
    going = [run for run in status.runs if not run.ended] or list(status.runs[:1])
    for run in going:
        parts += [Text(), *_run(run)]
    older = [run for run in status.runs if run not in going]
    if older:
        parts += [Text(), _older(older[:_OLDER])]
    if len(older) > _OLDER:
        parts.append(Text(f"and {len(older) - _OLDER} older runs: --json", "dim"))
    if not status.runs:
        parts += [
            Text(),
            Text("no run yet: vgmedgen-server run experiment=pilot", "dim"),
        ]
    return Group(*parts)


def _head(status: Status) -> Text:
    up = ("● up", "bold green") if status.running else ("○ down", "bold red")
    return Text.assemble(
        (clean(status.name), "bold"),
        f"  {clean(status.host)}:{status.port}  ",
        up,
        (f"  {_clock(status.at)}", "dim"),
    )


def _clock(moment: datetime) -> str:
    return moment.astimezone().strftime("%H:%M:%S")


def _table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in columns:
        last = name == columns[-1]
        if name in numbers:
            table.add_column(name, justify="right", no_wrap=not last)
        else:
            table.add_column(name, no_wrap=not last)
    return table


def _nodes(status: Status) -> RenderableType:
    if not status.nodes:
        return Text("no site yet: vgmedgen-server provision --sites …", "dim")
    table = _table("site", "node", "last seen", "base", "version", "to know")
    for node in status.nodes:
        told = notes(node)
        table.add_row(
            clean(node.site),
            _presence(node),
            ago(node.last_seen, status.at),
            _base(node),
            clean(node.version or DASH),
            Text("; ".join(map(clean, told)), "yellow"),
        )
    return table


def _presence(node: NodeStatus) -> Text:
    if not node.registered:
        return Text("○ no key", "dim")
    if node.online is None:
        return Text("? unknown", "dim")
    return Text("● online", "green") if node.online else Text("○ offline", "red")


def _base(node: NodeStatus) -> Text:
    mark = {True: " ✓", False: " ✗", None: ""}[node.base_ok]
    colour = "red" if node.base_ok is False else ""
    return Text((clean(node.base[:12]) or DASH) + mark, colour)


def _run(run: RunStatus) -> list[RenderableType]:
    parts: list[RenderableType] = [_title(run)]
    if run.why:
        code = f"{run.code}: " if run.code else ""
        parts.append(Text(clean(f"{code}{run.why}"), _COLOURS.get(run.state, "")))
    parts += [Text(f"! {clean(line)}", "yellow") for line in run.damaged]
    if run.waits:
        parts.append(Text(clean(run.waits), "cyan"))
    if run.rounds:
        parts.append(_progress(run))
    if run.records or run.sites:
        parts.append(_Grid(run))
        parts += _legend(run)
    if run.records:
        parts.append(_rounds(run))
    if run.records and run.private:
        scope = f"per {run.unit} at delta {run.delta:g}, over all runs of a site"
        parts.append(
            Text(clean(f"epsilon spent: {scope}, the site's that spent most"), "dim")
        )
    return parts


def _title(run: RunStatus) -> Text:
    facts = [f"experiment {run.experiment}", f"merge {run.merge}"]
    if run.private:
        facts.append(f"epsilon {run.epsilon:g} per {run.unit} at delta {run.delta:g}")
    return Text.assemble(
        ("run ", "dim"),
        (clean(run.run), "bold"),
        "  ",
        (clean(run.state), f"bold {_COLOURS.get(run.state, 'red')}"),
        (f"  {clean(', '.join(facts))}" if run.experiment else "", "dim"),
    )


def _progress(run: RunStatus) -> RenderableType:
    line = Table.grid(padding=(0, 2, 0, 0))
    told = f"{run.round} of {run.rounds} rounds"
    after = [f"{run.stage} is next" if run.stage else ""]
    if run.left_s is not None:
        after.append(f"about {how_long(run.left_s)} left")
    bar = ProgressBar(total=run.rounds, completed=run.round, width=_BAR)
    line.add_row(told, bar, Text(", ".join(filter(None, after)), "dim"))
    return line


class _Grid:
    """Site by round, as many of the latest rounds as the terminal is wide."""

    def __init__(self, run: RunStatus) -> None:
        self._run = run

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """Draw one line per site."""
        run = self._run
        names = max((len(site) for site in run.sites), default=0)
        fits = max(10, options.max_width - names - _ASIDE - 4)
        records = run.records[-fits:]
        first = records[0].number if records else 1
        table = _table("site", f"rounds from {first}", "")
        for site in run.sites:
            cells = Text.assemble(*(_mark(record, site) for record in records))
            if run.state == runs.RUNNING:
                cells.append(*_NEXT)
            table.add_row(clean(site), cells, Text(_often(run, site), "dim"))
        yield table


def _mark(record: RoundRecord, site: str) -> tuple[str, str]:
    if site in record.bounded:
        return _BOUNDED
    return _MARKS.get(part_of(record, site), _LEFT_OUT)


def _often(run: RunStatus, site: str) -> str:
    parts = Counter(part_of(record, site) for record in run.records)
    took = parts.pop(TOOK, 0)
    away = parts.pop(ABSENT, 0)
    told = [f"{took} of {run.round}"]
    told += [f"{many} {clean(code)}" for code, many in sorted(parts.items())]
    return ", ".join(told + ([f"{away} away"] if away else []))


def _legend(run: RunStatus) -> list[RenderableType]:
    marks: tuple[tuple[str, str], ...]
    marks = (("■", TOOK), ("✕", "left out"), ("·", ABSENT))
    if any(record.bounded for record in run.records):
        marks = (*marks, ("▣", "took part, its update held to the bound"))
    codes = {code for record in run.records for code in record.left_out.values()}
    lines: list[RenderableType] = [
        Text("  ".join(f"{mark} {what}" for mark, what in marks), "dim")
    ]
    for code in sorted(codes):
        told = "; ".join(filter(None, (meaning(code), advice(code))))
        lines.append(Text.assemble((clean(code), "yellow"), (f" {told}", "dim")))
    return lines


def _rounds(run: RunStatus) -> Table:
    last = ("epsilon spent",) if run.private else ("loss", "held-out loss")
    numbers = ("round", "to sites", "from sites", "time", *last)
    table = _table(
        *("round", "stage", "took part", "to sites", "from sites", "time", *last),
        *("left out, or held to the bound",),
        numbers=numbers,
    )
    for record in run.records[-_SHOWN:]:
        losses = [loss_of(record), heldout_of(record)]
        values = [spent_of(record)] if run.private else losses
        table.add_row(
            str(record.number),
            clean(record.stage),
            _took(run, record),
            size_text(sum(record.bytes_to.values())),
            size_text(sum(record.bytes_from.values())),
            how_long(record.seconds),
            *(plain(value, 3 if run.private else 4) for value in values),
            Text(", ".join(_apart(record))),
        )
    return table


def _apart(record: RoundRecord) -> list[str]:
    """Whose update did not count, and whose did not count whole."""
    left = [f"{clean(site)} {clean(code)}" for site, code in record.left_out.items()]
    sizes = record.bounded.items()
    return left + [f"{clean(site)} {times:g} x the others" for site, times in sizes]


def _took(run: RunStatus, record: RoundRecord) -> Text:
    told = f"{len(record.sites)} of {len(run.sites)}"
    return Text(told) if record.counted else Text(f"{told}, not counted", "red")


def _older(found: list[RunStatus]) -> Table:
    table = _table("earlier run", "state", "rounds", "since", "why")
    for run in found:
        code = f"{run.code}: " if run.code else ""
        table.add_row(
            clean(run.run),
            Text(clean(run.state), _COLOURS.get(run.state, "red")),
            f"{run.round} of {run.rounds}",
            clean(run.at[:16].replace("T", " ")),
            Text(clean(f"{code}{run.why}")),
        )
    return table
