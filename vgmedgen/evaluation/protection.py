"""The part of a report that says what differential privacy promises, and what it cost."""

from collections.abc import Mapping
from typing import Any

from vgmedgen.config.plan import replace_one
from vgmedgen.evaluation.findings import Report, pairs
from vgmedgen.evaluation.markup import (
    Html,
    known,
    mean,
    number,
    plain,
    section,
    table,
    tag,
)

LEVELS = {"patient": "patient-level", "lesion": "lesion-level", "image": "image-level"}
IMAGE_WARNING = (
    " Image-level: a patient with several images is protected less, by about as many "
    "times as there are images."
)
WITHOUT = "without_dp"


def claim(privacy: Mapping[str, Any]) -> str:
    """An epsilon with all that it needs to mean something."""
    return (
        f"ε ≤ {plain(privacy.get('epsilon'), 2)} ({LEVELS.get(privacy.get('unit', ''))}, "
        f"δ = {privacy.get('delta'):g}, {privacy.get('accountant')} accountant, all "
        "rounds and stages of this run)"
    )


def _replaced(privacy: Mapping[str, Any]) -> str:
    epsilon, delta = privacy.get("epsilon"), privacy.get("delta")
    if not (known(epsilon) and known(delta)):
        return "against telling two records apart it is worth half"
    return replace_one(float(epsilon), float(delta))


def protection(report: Report) -> Html:
    """Claim, noise of every training, and what each site's ledger has booked."""
    privacy = report.get("privacy")
    if not privacy:
        return Html()
    sites = [
        (
            site,
            LEVELS.get(row.get("unit", ""), row.get("unit", "")),
            number(row.get("epsilon"), 3),
            number(row.get("limit"), 2),
            row.get("accountant", ""),
        )
        for site, row in (privacy.get("sites") or {}).items()
    ]
    noises = [
        (
            row["name"],
            row["stage"],
            number(row.get("rounds"), 0),
            number(row.get("steps"), 0),
            number(row.get("rate"), 2),
            number(row.get("noise"), 3),
            number(row.get("clip"), 3),
        )
        for row in privacy.get("trainings") or ()
    ]
    return section(
        "privacy",
        "What is promised to each " + str(privacy.get("unit", "unit")),
        tag(
            "p",
            "Whoever sees everything that ever left a site learns little about any one "
            f"{privacy.get('unit', 'unit')}: {claim(privacy)}. Adjacency: one record "
            f"zeroed out, the number of units public; {_replaced(privacy)}. Losses at the "
            "sites were not told to the server; those on this page are a researcher's, who "
            "holds all images.",
            IMAGE_WARNING if privacy.get("unit") == "image" else "",
        ),
        table(
            "What each site's ledger has booked, over all its runs",
            ("Site", "Unit", "ε spent", "Site's limit", "Accountant"),
            sites,
            words=(0, 1, 4),
        ),
        table(
            "Noise of every training, settled before the run: noise multiplier times "
            "clip norm is its standard deviation",
            ("Training", "Stage", "Rounds", "Steps a round", "Rate", "Noise", "Clip"),
            noises,
            words=(0, 1),
        ),
    )


def cost(report: Report) -> str:
    """What privacy cost in held-out loss, as a sentence; empty without a comparison."""
    losses = report.get("heldout_denoising_loss") or {}
    private = pairs(losses, "base", "federated")
    free = pairs(losses, "base", WITHOUT)
    both = [site for site in private if site in free]
    if not report.get("privacy") or not both:
        return ""
    gain = mean(private[site][0] - private[site][1] for site in both)
    whole = mean(free[site][0] - free[site][1] for site in both)
    said = (
        f"Under {claim(report['privacy'])} the held-out loss falls by {plain(gain, 5)}"
    )
    if not known(gain) or not known(whole) or whole <= 0:
        return f"{said}."
    return (
        f"{said}, without privacy by {plain(whole, 5)}: privacy leaves "
        f"{plain(100 * gain / whole, 0)} % of what the run could learn."
    )
