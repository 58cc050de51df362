"""The parts of the status page: the head, the nodes, then the runs."""

from collections.abc import Iterator

from server.page_run import brief, full
from server.status import NodeStatus, Status, notes
from server.words import ago
from vgmedgen.evaluation.markup import DASH, Html, section, table, tag

CERTIFICATES = {"server": "certificate", "ca": "authority"}
_BRIEF = 30  # ended runs that are shown in one line


def parts(status: Status) -> Iterator[Html]:
    """Every part, each with an id of its own."""
    yield _head(status)
    yield _nodes(status)
    going = [run for run in status.runs if not run.ended]
    shown = going or list(status.runs[:1])
    for run in shown:
        yield full(run)
    older = [run for run in status.runs if run not in shown]
    if older:
        yield brief(older[:_BRIEF])
    if not status.runs:
        yield section(
            "runs",
            "Runs",
            tag("p", "No run yet. Start one with"),
            tag("p", tag("code", "vgmedgen-server run --kits kits/ experiment=pilot")),
        )


def _head(status: Status) -> Html:
    kind = "up" if status.running else "down"
    facts = [f"{status.host}:{status.port}"]
    facts += [
        f"{words} until {status.expiries[name]:%Y-%m-%d}"
        for name, words in CERTIFICATES.items()
        if name in status.expiries
    ]
    facts.append(f"{status.at:%Y-%m-%d %H:%M:%S} UTC")
    lines = [tag("p", line) for line in status.warnings]
    if not status.running:
        start = tag("code", "vgmedgen-server start --kits kits/")
        lines.insert(0, tag("p", "The server does not answer. Start it with ", start))
    return tag(
        "header",
        tag("p", "VG-MedGen coordinator", class_="over"),
        tag("h1", status.name, " ", tag("span", kind, class_=f"pill {kind}")),
        tag("p", " · ".join(facts), class_="note"),
        tag("div", *lines, class_="warning") if lines else "",
        id="head",
    )


def _nodes(status: Status) -> Html:
    if not status.nodes:
        return section(
            "nodes",
            "Sites",
            tag("p", "No site yet. Make a kit for each with"),
            tag(
                "p",
                tag(
                    "code", "vgmedgen-server provision --sites hospital-a,hospital-b …"
                ),
            ),
        )
    here = sum(bool(node.online) for node in status.nodes)
    told = f"{here} of {len(status.nodes)} online"
    if not status.running:
        told = "who is online is not known while the server is down"
    rows = [
        (
            node.site,
            _presence(node),
            _know(node),
            ago(node.last_seen, status.at),
            _base(node),
            node.version or DASH,
        )
        for node in status.nodes
    ]
    head = ("Site", "Node", "To know", "Last seen", "Base bundle", "Version")
    caption = f"{told}; ✓: the coordinator's base bundle, {status.base[:12] or DASH}"
    return section("nodes", "Sites", table(caption, head, rows, words=range(len(head))))


def _presence(node: NodeStatus) -> Html:
    if not node.registered:
        return tag("span", "○ no key yet", class_="unknown")
    if node.online is None:
        return tag("span", "? unknown", class_="unknown")
    kind = "online" if node.online else "offline"
    return tag("span", f"{'●' if node.online else '○'} {kind}", class_=kind)


def _base(node: NodeStatus) -> Html:
    if not node.base:
        return tag("span", DASH, class_="none", title="the node has not said it yet")
    mark = {True: " ✓", False: " ✗", None: ""}[node.base_ok]
    kind = "digest bad" if node.base_ok is False else "digest"
    return tag("span", node.base[:12] + mark, class_=kind, title=node.base)


def _know(node: NodeStatus) -> Html:
    found = notes(node)
    if not found:
        return tag("span", DASH, class_="none")
    return tag("span", "; ".join(found), class_="know")
