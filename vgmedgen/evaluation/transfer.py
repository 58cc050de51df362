"""The parts of a report that say how sites' own models do on the data of others."""

from vgmedgen.evaluation.findings import Report, sites_of
from vgmedgen.evaluation.markup import (
    Html,
    brief,
    join,
    known,
    note,
    number,
    plain,
    table,
    tag,
)


def across(report: Report) -> Html:
    """Local-only models on every site's data, beside the federated model's loss."""
    losses = report.get("local_on_sites") or {}
    if not losses:
        return Html()
    order = [*sites_of(report), *losses]
    columns = [
        c for c in dict.fromkeys(order) if any(c in row for row in losses.values())
    ]
    trained = [name for name in dict.fromkeys(order) if name in losses]
    measured = report.get("heldout_denoising_loss") or {}
    together = {c: (measured.get(c) or {}).get("federated") for c in columns}
    gaps = [
        abs(row[c] - together[c])
        for row in losses.values()
        for c in columns
        if known(row.get(c)) and known(together[c])
    ]
    top = max(gaps, default=0.0)

    def cell(at: str, on: str) -> Html:
        loss, reference = losses[at].get(on), together[on]
        own = "own" if at == on else ""
        if not known(loss) or not known(reference):
            return tag("td", number(loss), class_=f"num heat {own}".strip())
        gap = loss - reference
        strength = 0.5 * abs(gap) / top if top else 0.0
        colour = (
            "213,94,0" if gap > 0 else "0,114,178"
        )  # worse or better than federated
        return tag(
            "td",
            number(loss),
            tag("small", plain(gap, sign=True)),
            class_=f"num heat {own}".strip(),
            style=f"background:rgba({colour},{strength:.2f})",
        )

    rows = [(at, *(cell(at, on) for on in columns)) for at in trained]
    foot = ["Federated", *(number(together[on]) for on in columns)]
    return join(
        (
            tag("h3", "A site's own model on the data of the others"),
            note(
                "Row: where a model was trained alone. Column: whose held-out "
                "images it was tried on. The small number is its loss minus that of "
                "the federated model on the same images: ",
                tag("span", "orange, +", class_="key worse"),
                " worse than federated, ",
                tag("span", "blue, \N{MINUS SIGN}", class_="key better"),
                " better. A frame marks a site's own data.",
            ),
            table(
                "Held-out denoising loss of local-only models across sites (no "
                "unit; lower is better)",
                ("Trained at", *map(brief, columns)),
                rows,
                foot=foot if gaps else (),
            ),
        )
    )


def elsewhere(report: Report) -> Html:
    """Federated model beside the mean of all other sites' own models, per site."""
    others = report.get("others") or {}
    federated, local = others.get("federated") or {}, others.get("local_mean") or {}
    names = [name for name in sites_of(report) if name in federated or name in local]
    if not names:
        return Html()
    rows = []
    for name in names:
        ours, theirs = federated.get(name), local.get(name)
        gap = ours - theirs if known(ours) and known(theirs) else None
        rows.append((name, number(ours), number(theirs), number(gap, sign=True)))
    return table(
        "Denoising loss on each site's held-out images: the federated model, and "
        "the mean of the local-only models of all other sites (no unit; lower is "
        "better)",
        ("Site", "Federated", "Others' local-only models", "Difference"),
        rows,
    )
