"""What keeps a run's findings from being better, or from being certain."""

from collections.abc import Mapping

from vgmedgen.evaluation.findings import (
    Report,
    count,
    listing,
    pairs,
    sites_of,
    steering,
)
from vgmedgen.evaluation.markup import known, plain

FEW = 20  # held-out images below which a site's numbers are mostly chance
_NAMED = 4  # sites left out, and rounds that one missed, are named up to so many


def cautions(report: Report) -> list[str]:
    """What keeps the findings from being better, or from being certain."""
    return [
        *_not_better(report),
        *_not_steered(report),
        *_unmeasured(report),
        *_small(report),
        *_units(report),
        *_absent(report),
        *(str(note) for note in report.get("notes") or ()),
    ]


def _not_better(report: Report) -> list[str]:
    found = pairs(report.get("heldout_denoising_loss") or {}, "base", "federated")
    worse = [
        f"{site} ({plain(base)} → {plain(federated)})"
        for site, (base, federated) in found.items()
        if federated >= base
    ]
    if not worse:
        return []
    return [f"Federated is not better than base at {listing(worse, len(worse))}."]


def _not_steered(report: Report) -> list[str]:
    gaps, unclear = steering(report)
    if not unclear:
        return []
    named = [f"{site} ({plain(gaps[site])})" for site in unclear]
    return [
        (
            "The caption gap is not clearly above chance at "
            f"{listing(named, len(named))}: there, do not expect an image to follow "
            "its caption."
        )
    ]


def _unmeasured(report: Report) -> list[str]:
    losses = report.get("heldout_denoising_loss") or {}
    found = pairs(losses, "base", "federated")
    missing = [name for name in sites_of(report) if name not in found]
    if not missing or not found:
        return []
    return [f"No held-out comparison with the base exists for {listing(missing, 12)}."]


def _small(report: Report) -> list[str]:
    few = []
    for site in report.get("sites") or ():
        held = (site.get("images") or {}).get("heldout")
        if known(held) and held < FEW:
            few.append(f"{site.get('name', '?')} ({plain(held, 0)})")
    if not few:
        return []
    return [
        (
            f"Fewer than {FEW} held-out images at {listing(few, 12)}: small "
            "differences there may be chance."
        )
    ]


def _units(report: Report) -> list[str]:
    if report.get("unit_note"):
        return [str(report["unit_note"])]
    names = [
        str(site.get("name", "?"))
        for site in report.get("sites") or ()
        if site.get("unit_kind") == "image"
    ]
    if not names:
        return []
    return [
        (
            f"At {listing(names)} the data name no patient or lesion, so the image "
            "is the unit: images of one patient may be both trained on and held "
            "out, which flatters the held-out numbers."
        )
    ]


def _absent(report: Report) -> list[str]:
    rounds = report.get("rounds") or ()
    missed: dict[str, list[str]] = {}
    for entry in rounds:
        for site, code in (entry.get("left_out") or {}).items():
            missed.setdefault(site, []).append(f"{entry.get('number')} ({code})")
    lines = _missing(missed, len(rounds))
    void = [
        str(entry.get("number")) for entry in rounds if not entry.get("counted", True)
    ]
    if void:
        lines.append(
            f"{'Round' if len(void) == 1 else 'Rounds'} {listing(void)} did not "
            "count and changed nothing."
        )
    return lines


def _missing(missed: Mapping[str, list[str]], rounds: int) -> list[str]:
    if len(missed) > _NAMED:
        most = max(missed, key=lambda site: len(missed[site]))
        rate = f"{len(missed[most])} of {count(rounds, 'round')}"
        return [
            (
                f"{count(len(missed), 'site')} were left out of at least one round, "
                f"most often {most} ({rate}); who and why stands under Round by round."
            )
        ]
    lines = []
    for site, where in missed.items():
        named = f"{'round' if len(where) == 1 else 'rounds'} {listing(where)}"
        if len(where) > _NAMED:
            named = f"{len(where)} of {count(rounds, 'round')}"
        lines.append(f"{site} was left out of {named}.")
    return lines
