"""The parts of a report that say whether captions steer and whether sites agree."""

from collections.abc import Mapping
from typing import Any

from vgmedgen.evaluation.charts import MODELS, dot_plot
from vgmedgen.evaluation.findings import GAP_PLACES, Report, sites_of
from vgmedgen.evaluation.markup import (
    DASH,
    Html,
    join,
    known,
    number,
    section,
    table,
    tag,
)

VARIANTS = {
    "independent": "Independent priors",
    "common_start": "Common start",
    "anchor": "Common start with anchor",
}


def caption_gap(report: Report) -> Html:
    """Caption gap per site with its spread over shuffles: chart and table."""
    gaps, spreads = (
        report.get(key) or {} for key in ("caption_gap", "caption_gap_spread")
    )
    rows = {site: gaps.get(site) or {} for site in sites_of(report)}
    models = [m for m in MODELS if any(known(v.get(m)) for v in rows.values())]
    if not models:
        return Html()

    def cell(site: str, model: str) -> Html:
        value, spread = gaps.get(site, {}).get(model), spreads.get(site, {}).get(model)
        if not known(value) or not known(spread):
            return number(value, GAP_PLACES)
        return join((number(value, GAP_PLACES), " ± ", number(spread, GAP_PLACES)))

    return section(
        "captions",
        "Whether captions steer the model",
        tag(
            "p",
            "The caption gap is how much worse the model gets when captions are "
            "shuffled among the images. At 0 the model ignores its captions; a gap "
            "well above its spread (whiskers, ±: standard deviation over shuffles) "
            "says that they steer.",
        ),
        dot_plot(
            rows,
            spreads=spreads,
            zero=True,
            axis="caption gap (difference of denoising loss, no unit)",
            label="Caption gap of each model at each site; the numbers are in the "
            "table below",
        ),
        table(
            "Caption gap ± spread over shuffles (difference of denoising loss, no "
            "unit; higher means that captions say more)",
            ("Site", *(MODELS[m] for m in models)),
            [(site, *(cell(site, m) for m in models)) for site in rows],
        ),
    )


def alignment(report: Report) -> Html:
    """Agreement of the sites' visual latents, per round and per variant."""
    found = report.get("alignment") or {}
    rounds, variants = found.get("rounds") or (), found.get("variants") or {}
    if not rounds and not variants:
        return Html()

    def cells(entry: Mapping[str, Any]) -> list[Html]:
        return [
            number((entry.get(between) or {}).get(vector), 2)
            for between in ("sites", "mapper")
            for vector in ("anatomy", "style")
        ]

    head = (
        "Between sites: anatomy",
        "Between sites: style",
        "Mapper and site: anatomy",
        "Mapper and site: style",
    )
    parts = [
        tag(
            "p",
            "Sites never see one another's images, so it is not a matter of course "
            "that their visual models describe an image alike. Here they describe "
            "the same held-out images: 1 is full agreement, 0 is chance.",
        )
    ]
    if rounds:
        parts.append(
            table(
                "Agreement after each align round (mean centred cosine, from "
                "\N{MINUS SIGN}1 to 1)",
                ("Round", *head),
                [(entry.get("round", DASH), *cells(entry)) for entry in rounds],
            )
        )
    if variants:
        parts.append(
            table(
                "Agreement with and without the two remedies (mean centred cosine "
                "after the last align round, from \N{MINUS SIGN}1 to 1)",
                ("Variant", *head),
                [
                    (VARIANTS.get(name, name.replace("_", " ")), *cells(entry))
                    for name, entry in variants.items()
                ],
            )
        )
    return section("alignment", "Whether the sites see alike", *parts)
