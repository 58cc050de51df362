"""The parts of a report that say who took part and how good the model is."""

from collections.abc import Mapping, Sequence
from typing import Any

from vgmedgen.evaluation.charts import MODELS, bar, dot_plot
from vgmedgen.evaluation.findings import Report, sites_of
from vgmedgen.evaluation.markup import (
    DASH,
    Html,
    brief,
    join,
    known,
    mean,
    number,
    plain,
    section,
    table,
    tag,
)
from vgmedgen.evaluation.transfer import across, elsewhere

UNITS = {
    "patient": "patient",
    "lesion": "lesion",
    "image": "image (no patient known)",
}
_LABELS = 10  # of one site that are drawn; rarer ones are summed up


def participants(report: Report) -> Html:
    """Table of sites and the labels that each of them holds."""
    sites = report.get("sites") or ()
    if not sites:
        return Html()

    def pair(site: Mapping[str, Any], key: str) -> tuple[Html, Html]:
        counts = site.get(key) or {}
        return number(counts.get("train"), 0), number(counts.get("heldout"), 0)

    rows = [
        (
            site.get("name", "?"),
            site.get("dataset") or DASH,
            site.get("modality") or DASH,
            UNITS.get(site.get("unit_kind", ""), site.get("unit_kind") or DASH),
            *pair(site, "units"),
            *pair(site, "images"),
        )
        for site in sites
    ]
    head = (
        "Site",
        "Dataset",
        "Modality",
        "Unit",
        "Units, training",
        "Units, held out",
        "Images, training",
        "Images, held out",
    )
    return section(
        "sites",
        "Who took part",
        table(
            "Sites, what they hold, and how much of it was held out from training. A "
            "unit is never split between training and held-out.",
            head,
            rows,
            words=(0, 1, 2, 3),
        ),
        _labels(sites),
    )


def _labels(sites: Sequence[Mapping[str, Any]]) -> Html:
    blocks = []
    for site in sites:
        ranked = sorted(
            ((str(k), v) for k, v in (site.get("labels") or {}).items() if known(v)),
            key=lambda pair: (-pair[1], pair[0]),
        )
        if not ranked:
            continue
        if len(ranked) > _LABELS:
            rest = ranked[_LABELS - 1 :]
            left = (f"{len(rest)} rarer labels", sum(v for _, v in rest))
            ranked = [*ranked[: _LABELS - 1], left]
        top = max(v for _, v in ranked)
        lines = (
            tag("li", tag("span", name, title=name), bar(v, top), number(v, 0))
            for name, v in ranked
        )
        name = site.get("name", "?")
        blocks.append(
            tag(
                "figure",
                tag("figcaption", brief(str(name), 26)),
                tag("ul", *lines, class_="labels"),
                class_="small",
            )
        )
    if not blocks:
        return Html()
    return join(
        (
            tag("h3", "Images per label"),
            tag("div", *blocks, class_="multiples labelled"),
        )
    )


def _ordered(report: Report, key: str) -> dict[str, Mapping[str, Any]]:
    found = report.get(key) or {}
    return {site: found.get(site) or {} for site in sites_of(report)} if found else {}


def _models(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [m for m in MODELS if any(known(v.get(m)) for v in rows.values())]


def heldout(report: Report) -> Html:
    """Held-out denoising loss per site: chart and table."""
    rows = _ordered(report, "heldout_denoising_loss")
    models = _models(rows)
    if not models:
        return Html()
    change = {"base", "federated"} <= set(models)

    def cells(values: Mapping[str, Any]) -> list[object]:
        shown: list[object] = [number(values.get(model)) for model in models]
        if change:
            base, federated = values.get("base"), values.get("federated")
            shown.append(_change(base, federated))
        return shown

    # A mean over sites that another column lacks would compare different images.
    whole = [v for v in rows.values() if all(known(v.get(m)) for m in models)]
    means = {m: mean(v[m] for v in whole) for m in models}
    label = "Mean" if len(whole) == len(rows) else "Mean of sites with all numbers"
    head = ["Site", *(MODELS[m] for m in models), *(["Change by federation"] * change)]
    return section(
        "heldout",
        "How well the models explain held-out images",
        tag(
            "p",
            "Each model removes noise from images that it never trained on, given "
            "their captions. The loss is what it gets wrong: lower is better.",
        ),
        dot_plot(
            rows,
            axis="denoising loss (mean squared error of the noise, no unit)",
            label="Held-out denoising loss of each model at each site; the numbers "
            "are in the table below",
        ),
        table(
            "Held-out denoising loss per site (mean squared error of the noise, no "
            "unit; lower is better)",
            head,
            [(site, *cells(values)) for site, values in rows.items()],
            foot=[label, *cells(means)] if len(whole) > 1 else (),
        ),
        across(report),
        elsewhere(report),
    )


def _change(base: object, federated: object) -> Html:
    if not known(base) or not known(federated) or base == 0:
        return number(None)
    share = 100 * (federated - base) / base
    verdict = "better" if federated < base else "not better"
    return tag(
        "span",
        f"{plain(share, 1, sign=True)} % ",
        tag("em", verdict),
        class_="good" if federated < base else "bad",
    )
