"""The report of a run: one page that a person can look at, and the JSON behind it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgmedgen.evaluation import (
    course,
    findings,
    gating,
    lines,
    protection,
    results,
    steering,
)
from vgmedgen.evaluation.cautions import cautions
from vgmedgen.evaluation.gallery import gallery
from vgmedgen.evaluation.markup import (
    DASH,
    Html,
    document,
    glossary,
    known,
    mean,
    number,
    size,
    tag,
)
from vgmedgen.files import write_text

GLOSSARY = {
    "Site": "One hospital's node. Its images, masks and captions stay there.",
    "Base": "The weights that every site held before the run.",
    "Federated model": "What the run made: the base plus what all sites learned, "
    "merged.",
    "Local-only model": "The base trained by one site alone for as long; for "
    "comparison.",
    "Pooled model": "The base trained on all images in one place, which real hospitals "
    "could not do; for comparison.",
    "ε and δ": "How much whoever sees everything that left a site can learn about one "
    "unit: the odds of any guess change by at most a factor of e to the ε, but for a "
    "chance of δ. Smaller is safer.",
    "Without DP": "The same run on the same images without differential privacy; for "
    "comparison.",
    "Unit": "What is kept whole when data are split: a patient, a lesion where that "
    "is all the data tell, or a single image where they tell neither.",
    "Held-out": "Set aside before training and never trained on.",
    "Denoising loss": "Noise is added to an image and the model estimates it; the "
    "loss is the mean squared error. Lower is better. It says how well a model "
    "explains images, not how real its own look.",
    "Caption gap": "Denoising loss with captions shuffled among the images, minus "
    "the loss with the right ones. Above its spread, captions steer; at 0, they are "
    "ignored.",
    "Round": "One exchange: the sites train, send updates, and the server merges "
    "them. A round with too few sites does not count.",
    "Stage": "What a round trains: align (a visual prior at each site and the text "
    "mapper from captions to what it sees) or generate (the image model).",
    "Anatomy and style": "The two vectors that a caption becomes: where and what "
    "shape; colour, texture and device.",
    "Centred cosine": "Agreement of two vectors after their mean is taken off: 1 "
    "the same, 0 chance, \N{MINUS SIGN}1 opposite.",
}


def write(report: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.json` and the page `report.html`, which needs no other file.

    Args:
        report: facts of the run; a key that is missing leaves out its part of the page,
            and a number that is None or not finite is shown as a dash.
        folder: where both go; relative paths of images start here.

    Returns:
        Path of the page.

    Raises:
        StateError: if a file cannot be written.
    """
    facts = {key: _clean(value, folder) for key, value in report.items()}
    # Strict JSON: readers other than Python's refuse NaN, so _clean made it null.
    data = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / "report.json", f"{data}\n")
    path = folder / "report.html"
    write_text(path, page(facts, folder))
    return path


def page(report: Mapping[str, Any], folder: Path) -> str:
    """The page as HTML, with style, charts and images inside.

    Args:
        report: as in `write`, plain JSON values only.
        folder: relative paths of images start here.
    """
    report = {key: _known(value) for key, value in report.items() if value is not None}
    parts = [
        part
        for part in (
            results.participants(report),
            protection.protection(report),
            results.heldout(report),
            steering.caption_gap(report),
            gallery(report, folder),
            gating.gates(report),
            steering.alignment(report),
            lines.curves(report),
            course.rounds(report),
            course.seconds(report),
            glossary(GLOSSARY),
        )
        if part
    ]
    title = str(report.get("title") or "Report of a run")
    style = Path(__file__).with_name("report.css").read_text("utf-8")
    main = tag("main", _top(report, title), *parts)
    return document(title, style, main, _provenance(report))


def _clean(value: object, folder: Path) -> object:
    """Plain JSON values: no NaN, no array scalars, paths below `folder` relative."""
    if isinstance(value, Mapping):
        return {str(key): _clean(entry, folder) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(entry, folder) for entry in value]
    if isinstance(value, Path):
        inside = value.is_relative_to(folder)
        return (value.relative_to(folder) if inside else value).as_posix()
    if hasattr(value, "item"):  # a NumPy or torch scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _known(value: object) -> object:
    """`value` without keys that hold null, so that unknown and missing are one."""
    if isinstance(value, Mapping):
        return {k: _known(entry) for k, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_known(entry) for entry in value]
    return value


def _top(report: Mapping[str, Any], title: str) -> Html:
    facts = [
        str(report[key])
        for key in ("experiment", "created")
        if report.get(key) is not None
    ]
    sentences = (
        tag("strong" if subject == "heldout" else "span", f"{words} ")
        for subject, words in {
            **findings.lead(report),
            "privacy": protection.cost(report),
        }.items()
        if words
    )
    worries = cautions(report)
    worries.append(gating.caution(report))
    return tag(
        "header",
        tag("p", " · ".join(facts), class_="over"),
        tag("h1", title),
        tag("p", *sentences, class_="lead"),
        _figures(report),
        tag(
            "aside",
            tag("h2", "Read with care"),
            tag("ul", *(tag("li", worry) for worry in worries)),
            class_="care",
        ),
    )


def _figures(report: Mapping[str, Any]) -> Html:
    """The few numbers that are asked for first."""
    losses = report.get("heldout_denoising_loss") or {}
    found = findings.pairs(losses, "base", "federated")
    tiles: list[tuple[Any, str]] = []
    if found:
        better = sum(federated < base for base, federated in found.values())
        tiles.append(
            (f"{better} of {len(found)}", "sites where federated beats its base")
        )
        before, after = (mean(pair[side] for pair in found.values()) for side in (0, 1))
        arrow = tag("span", number(before), " → ", number(after))
        tiles.append((arrow, "mean held-out loss, base → federated"))
    gaps = [
        values.get("federated") for values in (report.get("caption_gap") or {}).values()
    ]
    if mean(gaps) is not None:
        gap = number(mean(gaps), findings.GAP_PLACES)
        tiles.append((gap, "mean caption gap, federated"))
    images = [(site.get("images") or {}).values() for site in report.get("sites") or ()]
    total = sum(count for counts in images for count in counts if known(count))
    if total:
        tiles.append((number(total, 0), "images at the sites"))
    rounds = report.get("rounds") or ()
    sent = mean(v for entry in rounds for v in (entry.get("bytes_from") or {}).values())
    if sent is not None:
        tiles.append((size(sent), "sent by a site per round, on average"))
    shown = (tag("li", tag("b", value), tag("span", words)) for value, words in tiles)
    return tag("ul", *shown, class_="figures") if tiles else Html()


def _provenance(report: Mapping[str, Any]) -> Html:
    base, release = report.get("base") or {}, report.get("release") or {}
    facts = {
        "Run": report.get("run"),
        "Experiment": report.get("experiment"),
        "Created": report.get("created"),
        "Seed": report.get("seed"),
        "VG-MedGen version": report.get("version"),
        "Config digest": report.get("config_digest"),
        "Base digest": base.get("digest"),
        "Base source": base.get("source"),
        "Release digest": release.get("digest"),
        "Release folder": release.get("folder"),
    }
    entries = (
        tag("div", tag("dt", name), tag("dd", DASH if value in (None, "") else value))
        for name, value in facts.items()
    )
    return tag(
        "footer",
        tag("h2", "Where this page comes from"),
        tag("dl", *entries, class_="facts"),
        tag("p", "All numbers, unrounded, are in report.json beside this page."),
    )
