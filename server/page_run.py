"""One run on the status page: how far it is, who took part, what crossed, what it cost."""

from collections.abc import Sequence

from server import runs
from server.page_grid import grid, took
from server.registry import RoundRecord
from server.standing import RunStatus, heldout_of, loss_of, spent_of
from server.words import how_long
from vgmedgen.codes import meaning
from vgmedgen.evaluation.lines import line_chart
from vgmedgen.evaluation.markup import (
    DASH,
    Html,
    duration,
    join,
    number,
    size,
    table,
    tag,
)

STATES = {
    runs.QUEUED: "waits for its turn",
    runs.RUNNING: "running",
    runs.FINISHED: "finished, its release is published",
    runs.FAILED: "failed",
    runs.STOPPED: "stopped by the coordinator",
}
_MOST = 100  # of the latest rounds that are told one by one
_DIGEST = 64  # characters of a release's digest; whatever is shorter is a code
_WIDE = 1000.0  # of the bar of progress, in its own units
_CHART = 3  # rounds from which a curve is worth drawing


def pill(state: str) -> Html:
    """The state of a run in its colour."""
    kind = state if state in STATES else "unknown"
    return tag("span", state, class_=f"pill {kind}", title=STATES.get(state))


def full(run: RunStatus) -> Html:
    """A run with all that is known of it, as one part of the page."""
    return tag(
        "section",
        tag("h2", tag("span", run.run, class_="name"), " ", pill(run.state)),
        tag("p", _asked(run), class_="note"),
        _trouble(run),
        tag("p", run.waits, class_="waits") if run.waits else "",
        _bar(run),
        _figures(run),
        grid(run),
        _curves(run),
        _details(run),
        id=f"run-{run.run}",
    )


def brief(found: Sequence[RunStatus]) -> Html:
    """Runs that have ended, one line each."""
    rows = [
        (
            run.run,
            pill(run.state),
            f"{run.round} of {run.rounds}" if run.rounds else DASH,
            _since(run),
            f"{run.code}: {run.why}" if run.code else run.why or DASH,
        )
        for run in found
    ]
    head = ("Run", "State", "Rounds", "Since (UTC)", "Why")
    return tag(
        "section",
        tag("h2", "Earlier runs"),
        table("Newest first", head, rows, words=range(len(head))),
        id="earlier",
    )


def _since(run: RunStatus) -> str:
    return run.at[:16].replace("T", " ") or DASH


def _asked(run: RunStatus) -> str:
    facts = [f"since {_since(run)} UTC"] if run.at else []
    if run.experiment:
        facts = [f"experiment {run.experiment}", f"merge {run.merge}", *facts]
        facts.append(f"at least {run.min_sites} sites a round")
        facts += _limits(run)
    if run.private:
        claim = f"ε {run.epsilon:g} per {run.unit} at δ {run.delta:g}"
        facts.append(f"differential privacy, {claim}")
    elif run.experiment:
        facts.append("no differential privacy")
    return " · ".join(facts)


def _limits(run: RunStatus) -> list[str]:
    """How far one site may move the model by itself."""
    told = []
    if run.weight_cap:
        told.append(
            f"no site counts for more than {run.weight_cap:g} times the others' median"
        )
    if run.norm_bound:
        told.append(
            f"no update changes more than {run.norm_bound:g} times the others' median"
        )
    return told


def _trouble(run: RunStatus) -> Html:
    lines = list(run.damaged)
    if run.why or run.code:
        code = f"[{run.code}]" if run.code else ""
        lines.insert(0, f"{run.why} {code}")
    if not lines:
        return Html()
    parts = (tag("p", line) for line in lines)
    kind = "failed" if run.state == runs.FAILED else None
    return tag("div", *parts, class_=" ".join(filter(None, ("warning", kind))))


def _bar(run: RunStatus) -> Html:
    """Rounds done as a bar, with a line where the stages meet."""
    if not run.rounds:
        return Html()
    done = _WIDE * run.round / run.rounds
    meet = _WIDE * run.align_rounds / run.rounds
    label = f"{run.round} of {run.rounds} rounds are complete"
    return tag(
        "svg",
        tag("rect", class_="track", width=f"{_WIDE:g}", height="14", rx="4"),
        tag("rect", class_="fill", width=f"{done:.1f}", height="14", rx="4"),
        tag("rect", class_="meet", x=f"{meet - 1:.1f}", width="2", height="14"),
        viewBox=f"0 0 {_WIDE:g} 14",
        preserveAspectRatio="none",
        class_="progress",
        role="img",
        aria_label=label,
    )


def _figures(run: RunStatus) -> Html:
    last = run.records[-1] if run.records else None
    of = f"{run.round} of {run.rounds}" if run.rounds else f"{run.round}"
    words = "rounds are complete"
    if run.stage:
        words += f"; round {run.round + 1} is next, stage {run.stage}"
    tiles: list[tuple[object, str]] = [(of, words)]
    if last:
        sent = sum(sum(r.bytes_from.values()) for r in run.records)
        got = sum(sum(r.bytes_to.values()) for r in run.records)
        took = f"{len(last.sites)} of {len(run.sites)}"
        tiles.append((took, f"sites took part in round {last.number}"))
        tiles.append((size(sent), "came from the sites"))
        tiles.append((size(got), "went to the sites"))
        tiles.append((duration(sum(r.seconds for r in run.records)), _left(run)))
        tiles += _values(run, last)
    shown = (tag("li", tag("b", value), tag("span", told)) for value, told in tiles)
    return tag("ul", *shown, class_="figures")


def _left(run: RunStatus) -> str:
    if run.left_s is None:
        return "in its rounds"
    return f"in its rounds; about {how_long(run.left_s)} left"


def _values(run: RunStatus, last: RoundRecord) -> list[tuple[object, str]]:
    if run.private:
        return [(number(spent_of(last), 2), f"ε spent at most, {_scope(run)}")]
    told: list[tuple[object, str]] = [
        (number(loss_of(last)), f"mean training loss, round {last.number}")
    ]
    measured = [record for record in run.records if record.heldout_loss]
    if measured:
        value, at = heldout_of(measured[-1]), measured[-1].number
        told.append((number(value), f"mean held-out loss, round {at}"))
    return told


def _curves(run: RunStatus) -> Html:
    """Loss by stage, as losses of two stages cannot be compared; or ε over all."""
    lines: list[tuple[str, str, list[tuple[float, float]]]] = []
    if run.private:
        points = [(float(r.number), e) for r in run.records if (e := spent_of(r))]
        lines.append((f"ε spent, per {run.unit}", "ε", points))
    else:
        for stage in dict.fromkeys(record.stage for record in run.records):
            points = [
                (float(r.number), value)
                for r in run.records
                if r.stage == stage and (value := loss_of(r)) is not None
            ]
            lines.append((f"Training loss, {stage}", "loss", points))
        held = [
            (float(r.number), value)
            for r in run.records
            if (value := heldout_of(r)) is not None
        ]
        lines.append(("Held-out loss", "loss", held))
    charts = [
        line_chart(
            points,
            title=title,
            across="round",
            up=up,
            reach=_reach(points),
            dots=True,
        )
        for title, up, points in lines
        if len(points) >= _CHART
    ]
    return tag("div", *charts, class_="multiples") if charts else Html()


def _scope(run: RunStatus) -> str:
    """What an epsilon of a run is of; no number of it is told without."""
    return f"per {run.unit} at δ {run.delta:g}, over all runs of that site"


def _reach(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    xs, ys = zip(*points, strict=True)
    slack = (max(ys) - min(ys)) * 0.08 or abs(max(ys)) * 0.1 or 1.0
    return min(xs), max(xs), max(0.0, min(ys) - slack), max(ys) + slack


def _details(run: RunStatus) -> Html:
    if not run.records:
        return Html()
    losses = ["Mean loss", "Mean held-out loss"]
    values = ["ε spent at most"] if run.private else losses
    scope = f"; ε {_scope(run)}" if run.private else ""
    rounds = table(
        f"Rounds, newest first; bytes of all sites together{scope}",
        (
            *("Round", "Stage", "Took part", "Left out, or held to the bound"),
            *("To", "From", "Time", *values),
        ),
        [_line(run, record) for record in reversed(run.records[-_MOST:])],
        words=(0, 1, 2, 3),
    )
    last = {s: r for r in run.records for s in r.sites}
    shown = [name.replace("Mean l", "L").replace("Mean h", "H") for name in values]
    by_site = table(
        f"Sites, over all rounds of this run{scope}",
        (
            *("Site", "Took part", "Held to the bound", "To the site"),
            *("From the site", *(f"{name}, last" for name in shown)),
        ),
        [
            (
                site,
                f"{took(run, site)} of {run.round}",
                f"{sum(site in r.bounded for r in run.records)} rounds",
                size(sum(r.bytes_to.get(site, 0) for r in run.records)),
                size(sum(r.bytes_from.get(site, 0) for r in run.records)),
                *_own(run, last.get(site), site),
            )
            for site in run.sites
        ],
    )
    parts = [_fold("Round by round", rounds), _fold("Site by site", by_site)]
    if run.installed:
        parts.append(_fold("Who installed the release", _installed(run)))
    return join(parts)


def _fold(title: str, body: Html) -> Html:
    return tag("details", tag("summary", title), body)


def _line(run: RunStatus, record: RoundRecord) -> tuple[object, ...]:
    part = f"{len(record.sites)} of {len(run.sites)}"
    apart = [f"{site} ({code})" for site, code in record.left_out.items()]
    apart += [f"{s} ({n:g} times the others)" for s, n in record.bounded.items()]
    losses = [loss_of(record), heldout_of(record)]
    values = [spent_of(record)] if run.private else losses
    void = tag("em", f"{part}, not counted", class_="bad")
    return (
        record.number,
        record.stage,
        part if record.counted else void,
        ", ".join(apart) or DASH,
        size(sum(record.bytes_to.values())),
        size(sum(record.bytes_from.values())),
        duration(record.seconds),
        *(number(value, 2 if run.private else 4) for value in values),
    )


def _own(run: RunStatus, record: RoundRecord | None, site: str) -> list[Html]:
    """What the site told last: epsilon, or both of its losses."""
    if run.private:
        return [number(record.epsilon.get(site) if record else None, 2)]
    held = [r.heldout_loss[site] for r in run.records if site in r.heldout_loss]
    loss = record.loss.get(site) if record else None
    return [number(loss, 4), number(held[-1] if held else None, 4)]


def _installed(run: RunStatus) -> Html:
    rows = [
        (
            site,
            what[:12],
            meaning(what) if len(what) < _DIGEST else "installed",
        )
        for site, what in (run.installed or {}).items()
    ]
    head = ("Site", "Release or code", "Meaning")
    return table("Sites that were sent the release", head, rows, words=(0, 1, 2))
