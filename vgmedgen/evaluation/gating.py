"""What the release gates of the sites said of the synthetic images of a run."""

from collections.abc import Mapping
from typing import Any

from vgmedgen.evaluation.findings import Report, count, listing, sites_of
from vgmedgen.evaluation.markup import (
    DASH,
    Html,
    note,
    number,
    plain,
    section,
    table,
    tag,
)

UNCHECKED = "The synthetic images have not passed a memorisation check."


def gates(report: Report) -> Html:
    """Table of what each site's gate held back; a site without one says why."""
    found: Mapping[str, Mapping[str, Any]] = report.get("gate") or {}
    if not found:
        return Html()
    head = (
        *("Site", "Drawn", "Cleared", "Held back", "By mistake, at most"),
        *("Nearer to training", "Expected", "Chance of as many"),
    )
    whys = (
        tag("p", f"{site}: not compared: {one['why']}.", class_="note")
        for site, one in found.items()
        if one.get("why")
    )
    return section(
        "gate",
        "What the release gates found",
        note(
            "Each site compared what it drew with its own training images, and set the "
            "threshold by its held-out ones. It catches copies; a model can hold "
            "something of an image without copying it. Only cleared images are shown "
            "above, and those of sites without a gate."
        ),
        table(
            "Synthetic images by what their site's gate said. Nearer to training: "
            "images that lie nearer to a training than to any held-out image.",
            head,
            (_row(site, one) for site, one in found.items()),
        ),
        *whys,
    )


def caution(report: Report) -> str:
    """What was checked and what was not, in one line."""
    found: Mapping[str, Mapping[str, Any]] = report.get("gate") or {}
    compared = {site: one for site, one in found.items() if not one.get("why")}
    if not compared:
        return UNCHECKED
    tried = sum(one["tried"] for one in compared.values())
    held = sum(one["flagged"] for one in compared.values())
    told = (
        f"The release gate cleared {plain(tried - held, 0)} of "
        f"{count(tried, 'synthetic image')}; it catches copies of training images of the "
        "site that drew them, and nothing subtler."
    )
    if len(compared) < len(found):
        left = [site for site in found if site not in compared]
        told += f" At {listing(left)} no gate compared them: any may be a copy."
    return told


def passed(report: Report) -> str:
    """What a reader of the pictures has to know, in one sentence."""
    found = report.get("gate") or {}
    shown = [
        site for site in sites_of(report) if (report.get("images") or {}).get(site)
    ]
    left = [site for site in shown if not found.get(site) or found[site].get("why")]
    if not left:
        return (
            "The release gate of its site compared each with the training images and "
            "let it pass. "
        )
    where = "" if len(left) == len(shown) else f" at {listing(left)}"
    return (
        f"Those{where} have not passed a memorisation check, so one may resemble a "
        "training image closely. "
    )


def _row(site: str, one: Mapping[str, Any]) -> tuple[object, ...]:
    if one.get("why"):
        return (site, number(one.get("tried"), 0), *[DASH] * 6)
    tried, held = one["tried"], one["flagged"]
    expected = one["expected"] * tried
    return (
        site,
        number(tried, 0),
        number(tried - held, 0),
        number(held, 0),
        f"{plain(100 * one['promised'], 1)} %",
        number(one["closer"], 0),
        number(expected, 1),
        number(one["chance"], 2),
    )
