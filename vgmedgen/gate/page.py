"""The gate's report as `gate.json` and `gate.html`, which may go with the images."""

import json
from pathlib import Path

from vgmedgen.evaluation import markup
from vgmedgen.evaluation.markup import (
    Html,
    document,
    glossary,
    note,
    plain,
    section,
    table,
    tag,
)
from vgmedgen.files import write_text
from vgmedgen.gate import local
from vgmedgen.gate.calibration import FIT
from vgmedgen.gate.figures import binned
from vgmedgen.gate.measured import measured
from vgmedgen.gate.measured_table import finds_and_misses
from vgmedgen.gate.report import Report
from vgmedgen.gate.statistics import Interval

JSON, HTML = "gate.json", "gate.html"
SURE = 0.01  # a chance below which something is called more than chance
LEAST = 0.0001  # smaller chances are told as smaller than this
LIMITS = (
    (
        "Cleared means: compared with every training image of the site, as it is, turned, "
        "mirrored, cropped, scaled, stretched and shifted, and not more like one of them "
        "than real images of others are."
    ),
    (
        "The gate catches copies. A model can hold something of a patient without copying "
        "an image, and what was copied in a small part or redrawn may pass."
    ),
    (
        "It compares with the training images of the site that drew the images; those of "
        "the other sites that trained the model are not there to be compared with."
    ),
    (
        "It reads the training images, so no differential privacy covers what it lets "
        "pass, nor the counts on this page."
    ),
    (
        "It says nothing about whether an image is right, or good for any use: nothing "
        "here is for diagnosis."
    ),
)
GLOSSARY = {
    "Training image": "A real image of the site that the model learned from.",
    "Held-out image": "A real image of the same site, of other patients (or lesions, or "
    "single images, where the data know no more), which never trained.",
    "Score": "Four detectors say how alike an image and its nearest training image are: "
    "fine structure, perceptual hash, what an encoder sees, and patches that lie alike. "
    "In each, 0 is usual for images that copy nothing, and every further 1 is 2.7 times "
    "as rare. The score is the highest of the four.",
    "Distance": "How far apart an encoder puts an image and its nearest training image; "
    "0 is the same picture.",
    "False alarm": "An image that is held back though it copies nothing.",
    "95 % interval": "The shares that would not make the count a surprise; few images "
    "give a wide one (Clopper and Pearson 1934).",
    "Quarantine": "The folder of what was held back. It is for the site's own eyes.",
}


def write(report: Report, folder: Path) -> None:
    """Write both into `folder`.

    Raises:
        StateError: if the disk is full or the folder not writable.
    """
    told = json.dumps(report.to_json(), indent=2, allow_nan=False)
    write_text(folder / JSON, told + "\n")
    write_text(folder / HTML, page(report))


def page(report: Report) -> str:
    """The page as HTML, with style and figures inside."""
    style = markup.verdict_style(Path(__file__).with_name("gate.css"))
    main = tag(
        "main",
        _top(report),
        _reasons(report),
        _threshold(report),
        _closer(report),
        finds_and_misses(measured()),
        section(
            "limits",
            "What this shows, and what it does not",
            tag("ul", *(tag("li", told) for told in LIMITS), class_="limits"),
        ),
        glossary(GLOSSARY),
    )
    foot = tag(
        "footer",
        tag("h2", "Where this page comes from"),
        tag(
            "p",
            f"Gate {report.gate}: a digest of the base, the extractor, the site's "
            "images and the settings; the same gate says the same of the same image. "
            "All numbers are in gate.json beside this page.",
        ),
    )
    return document("Report of the release gate", style, main, foot)


def _top(report: Report) -> Html:
    kind, word = _verdict(report)
    return tag(
        "header",
        tag(
            "p",
            "Goes with the synthetic images: counts only, no real image, no file, no "
            "patient",
            class_="over",
        ),
        tag("h1", "Report of the release gate"),
        tag(
            "div",
            tag("span", word, class_="word"),
            tag("p", tag("strong", headline(report)), class_="lead"),
            tag("p", _meaning(report)),
            class_=f"verdict {kind}",
        ),
        _figures(report),
    )


def headline(report: Report) -> str:
    """How many were tried, cleared and held back, in one sentence."""
    tried, held = report.tried, report.flagged
    if not tried:
        return "No image was tried, so none is cleared."
    if tried == 1:
        return f"One image was tried, and it is {'held back' if held else 'cleared'}."
    every = "Both" if tried == 2 else f"All {_count(tried)}"  # noqa: PLR2004
    if not held:
        return f"{every} images that were tried are cleared."
    if held == tried:
        return f"{every} images that were tried are held back; none is cleared."
    are = "is" if held == 1 else "are"
    return (
        f"{_count(tried)} images were tried: {_count(report.cleared)} cleared, "
        f"{_count(held)} {are} held back."
    )


def _verdict(report: Report) -> tuple[str, str]:
    if not report.tried:
        return "none", "nothing tried"
    if not report.cleared:
        return "red", "none cleared"
    return ("amber", "look into it") if _many(report) else ("green", "cleared")


def _many(report: Report) -> bool:
    """Whether more are held back than false alarms explain."""
    return report.share is not None and report.share.low > report.promised


def _meaning(report: Report) -> str:
    if not report.tried:
        return "There is nothing to hand on."
    usual = report.promised * report.tried
    told = (
        f"Of images that copy nothing, the gate holds back at most "
        f"{_share(report.promised)} by mistake; of {_count(report.tried)} that is "
        f"{plain(usual, 1) if usual >= 1 else 'less than one'}."
    )
    if _many(report):
        told += (
            " More were held back than that explains: the model may have kept some "
            "training images. Have somebody at the site look into the quarantine."
        )
    elif report.flagged:
        told += " No more were held back than that explains."
    return told + (
        " What was held back is not among the images that go with this page."
        if report.flagged
        else ""
    )


def _figures(report: Report) -> Html:
    tiles = [
        (_count(report.tried), "images tried"),
        (_count(report.cleared), "cleared"),
        (_count(report.flagged), f"held back{_of(report.share)}"),
        (_share(report.promised), "at most, of harmless images held back by mistake"),
        (_count(report.training), "training images that each was compared with"),
    ]
    shown = (tag("li", tag("b", value), tag("span", words)) for value, words in tiles)
    return tag("ul", *shown, class_="figures")


def _reasons(report: Report) -> Html:
    title = "Why images were held back"
    if not report.reasons:
        return section("reasons", title, note("None was held back."))
    rows = (
        (reason[0].upper() + reason[1:], _count(count))
        for reason, count in report.reasons.items()
    )
    return section(
        "reasons",
        title,
        table(
            "Images by the strongest of the four reasons", ("Reason", "Images"), rows
        ),
    )


def _threshold(report: Report) -> Html:
    usable = report.heldout - report.copies
    rate, units = _share(report.false_alarms), _count(report.calibrating)
    told = (
        f"An image is held back when it is more like a training image than the "
        f"{_count(usable)} usable held-out images are, of {units} units, but for {rate} "
        f"of them. In scores, the threshold is "
        f"{plain(report.threshold, 1)}."
    )
    how = (
        f"{units} units are too few for a firm rank at {rate}, so the "
        "threshold is read off the smooth tail that their scores follow, and lies no "
        "lower than their rank would put it."
        if report.method == FIT
        else "It is a rank among their scores. What is usual of a score was learned "
        "from training images, so that the held-out ones had no part in it."
    )
    always = (
        "One thing needs no threshold: where one training image fits the fine structure "
        f"so well that it stands out by {plain(report.same, 0)} times the spread of the "
        f"others, or has {plain(local.SAME + 1, 0)} times as many patches in common, "
        "placed alike, as the ninth best, it is the same picture, and the image is always "
        "held back."
    )
    names = ("synthetic", "held out, real")
    return section(
        "threshold",
        "How alike is too alike?",
        tag("p", told, " ", how),
        tag("p", always),
        *_alarms(report),
        _copies(report),
        tag("h3", "How alike synthetic and held-out images are to training images"),
        note(
            "Bars are shares of the images. The last bar holds whatever lies further "
            "out, the first whatever lies below. A model that copies shows synthetic "
            "images beyond the threshold, or far nearer than held-out ones."
        ),
        tag(
            "div",
            binned(
                report.scores,
                names,
                "score: higher is more alike",
                mark=(report.threshold, "held back"),
            ),
            binned(
                report.distances,
                names,
                "distance to the nearest training image: lower is more alike",
            ),
            class_="twins",
        ),
    )


def _alarms(report: Report) -> tuple[Html, ...]:
    """What is promised, and how far off these held-out images may be."""
    promise = (
        f"At most {_share(report.promised)} of the images of further units are held back "
        "by mistake, if these are drawn as the held-out units were, whatever their "
        "scores look like (split conformal prediction, Vovk et al. 2005); one picture "
        "under two names is no mistake."
    )
    if report.promised > report.false_alarms:
        promise += (
            f" The site asks for {_share(report.false_alarms)}; "
            f"{_count(report.calibrating)} units can promise no less than one in "
            f"{_count(report.calibrating + 1)}. That the smooth tail keeps to "
            f"{_share(report.false_alarms)} is an estimate and no promise."
        )
    near = report.likely
    limits = f"at most {_share(near.high)}" if near.low == 0 else f"{_between(near)}"
    luck = (
        "That is the mean over all sets of held-out units that might have been drawn. "
        f"With the one there is, it is {limits} (95 % interval; the less, the more units "
        "are held out)."
    )
    return tag("p", promise), tag("p", luck)


def _copies(report: Report) -> Html:
    if not report.copies:
        return tag("p", "No held-out image shows the same picture as a training image.")
    one = report.copies == 1
    return tag(
        "p",
        tag(
            "strong",
            f"{_count(report.copies)} held-out {'image shows' if one else 'images show'} "
            "the same picture as a training image of another unit. ",
        ),
        f"{'It was' if one else 'They were'} left out of the calibration. Its data hold "
        "one picture under two names: ",
        tag("code", "vgmedgen data twins"),
        " finds such images and keeps them together.",
        class_="warning",
    )


def _closer(report: Report) -> Html:
    title = "Do the images lean towards what the model was trained on?"
    if not report.tried:
        return section("closer", title, note("No image was tried."))
    near = (
        f"{_count(report.closer)} of {_count(report.tried)} "
        f"({_share(report.closer / report.tried)}) "
        f"{'lies' if report.closer == 1 else 'lie'} nearer to a training image than to "
        "any held-out one."
    )
    usual = (
        f"With {_count(report.training)} training and {_count(report.heldout)} held-out "
        f"images, {_share(report.expected)} would if the model knew neither set, as each "
        "real image would be the nearest equally often."
    )
    chance = (
        f"smaller than {_share(LEAST)}"
        if report.chance < LEAST
        else _share(report.chance)
    )
    test = (
        f"The chance of as many or more is {chance} (one-sided exact binomial test). "
    )
    found = (
        "That is more than chance: the images lean towards the training images. This "
        "alone makes none of them a copy, but the model carries traces of its data."
        if report.chance < SURE
        else "That is no more than chance would have it."
    )
    return section("closer", title, tag("p", near, " ", usual), tag("p", test, found))


def _count(value: int) -> str:
    return plain(value, 0)


def _share(value: float) -> str:
    """A share in percent, with as many decimals as a small one needs."""
    percent = 100 * value
    places = 0 if percent in (0, 100) or percent == round(percent) else 1
    if 0 < percent < 0.1:  # noqa: PLR2004  # rates go down to a hundredth of a percent
        places = 2
    return f"{plain(percent, places)} %"


def _between(found: Interval) -> str:
    return f"{plain(100 * found.low, 1)} to {plain(100 * found.high, 1)} %"


def _of(found: Interval | None) -> str:
    if found is None:
        return ""
    return f": {_share(found.value)} (95 % interval {_between(found)})"
