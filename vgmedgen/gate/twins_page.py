"""The page of twins: each pair side by side, so that a person can take some apart."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from vgmedgen.data import images
from vgmedgen.data.records import Record
from vgmedgen.evaluation import markup
from vgmedgen.evaluation.markup import (
    Html,
    document,
    glossary,
    note,
    plain,
    section,
    tag,
)
from vgmedgen.gate.structure import IDENTICAL, SAME
from vgmedgen.gate.twins import COMMON, Pair, Twins
from vgmedgen.trust.files import write_secret

SHOWN = 256  # px, side of an image on the page
QUALITY = 85  # of its JPEG
CLEAR = 2.0  # firmness from which a pair is hardly ever two pictures
LIMITS = (
    (
        "Found is one picture under several names, and some frames of one scan a moment "
        "apart, which hold the same parts. Other pictures of one patient are not: which "
        "these are, only the hospital knows. It can write them into the csv too, under "
        "one unit."
    ),
    (
        "Among few units, a frame or a scale that two images "
        "share can stand out like a picture. Such pairs come first below."
    ),
)
GLOSSARY = {
    "Unit": "What a split never separates and privacy protects: a patient, or a lesion or "
    "a single image where the data know no more.",
    "Correlation": "How well the fine structure of the two images agrees at the turn, "
    f"scale and shift that fit best: 1 is the same to the pixel; from {IDENTICAL:g} on "
    "two images count as one picture.",
    "Patches in common": "How many parts of one image lie in the other as they lie in the "
    "first, cropped, scaled, stretched or turned, against the ninth most alike unit; from "
    f"{COMMON + 1:g} times as many on two images count as one picture.",
    "Stands out": "How far this agreement lies above that with all other units, in their "
    f"own spread; from {SAME:g} on two images count as one picture. It finds a copy that "
    "was cropped or drawn over, whose correlation is low.",
}


def write(twins: Twins, table: Path, path: Path) -> None:
    """Write the page as a new file that its owner alone can read.

    Raises:
        DataError: if an image cannot be read.
        StateError: if the disk is full or not writable.
        TrustError: if the file exists.
    """
    write_secret(path, page(twins, table).encode())


def page(twins: Twins, table: Path) -> str:
    """The page as HTML, with style and images inside.

    Args:
        twins: what was found.
        table: the csv of units that the page explains.

    Raises:
        DataError: if an image cannot be read.
    """
    style = markup.verdict_style(Path(__file__).with_name("twins.css"))
    main = tag(
        "main",
        _top(twins),
        _todo(twins, table),
        section(
            "limits",
            "What this finds, and what it does not",
            *(tag("p", told) for told in LIMITS),
        ),
        _sheet(twins),
        glossary(GLOSSARY),
    )
    return document("Images that show one picture", style, main)


def headline(twins: Twins) -> str:
    """What was found, in one line."""
    if not twins.pairs:
        return (
            f"no two of {len(twins.before.units)} units share a picture "
            f"({len(twins.before.records)} images); every unit stays as it is"
        )
    joined = sum(map(len, twins.groups.values()))
    return (
        f"{twins.images} of {len(twins.before.records)} images show a picture of another "
        f"unit: {joined} units are joined into {len(twins.groups)}, "
        f"{len(twins.before.units)} become {len(twins.after.units)}"
    )


def _top(twins: Twins) -> Html:
    found = bool(twins.pairs)
    told = headline(twins)
    tiles = [
        (len(twins.before.records), "images compared, each with all others"),
        (len(twins.before.units), "units before"),
        (len(twins.pairs), "pairs that show one picture"),
        (len(twins.after.units), "units after they are joined"),
    ]
    shown = (
        tag("li", tag("b", plain(value, 0)), tag("span", words))
        for value, words in tiles
    )
    return tag(
        "header",
        tag(
            "p",
            "Shows images of patients and their file names: stays in the hospital",
            class_="over",
        ),
        tag("h1", "Images that show one picture"),
        tag(
            "div",
            tag("span", "look at them" if found else "none found", class_="word"),
            tag("p", tag("strong", f"{told[0].upper()}{told[1:]}."), class_="lead"),
            tag(
                "p",
                "A wrong pair only makes a unit larger, which costs no privacy. A missed "
                "one leaves one picture in two units: the promise for each unit then "
                "covers half of what that picture gives away.",
            ),
            class_=f"verdict {'amber' if found else 'green'}",
        ),
        tag("ul", *shown, class_="figures"),
    )


def _todo(twins: Twins, table: Path) -> Html:
    use = tag(
        "li",
        "Name the csv in site.yaml, beside the dataset: ",
        tag("code", f"grouping: {table.name}"),
        ".",
    )
    look = tag(
        "li",
        "Look at the pairs below; the most doubtful come first. Where two images are "
        "neither one picture nor of one patient, strike the pair: in ",
        tag("code", table.name),
        " give the images of a unit that lost its name that name again, as it stands "
        "below them here. Units may hang together over a third image; then judge those "
        "pairs too.",
    )
    before = tag(
        "li",
        "Best do so before anything trains here: a unit that is joined later takes over "
        "what each of its parts has spent.",
    )
    steps = (look, use, before) if twins.pairs else (use,)
    return section("todo", "What to do with it", tag("ol", *steps, class_="todo"))


def _sheet(twins: Twins) -> Html:
    title = "Pairs, the most doubtful first"
    if not twins.pairs:
        return section("pairs", title, note("There is none."))
    now = {one.id: one.unit for one in twins.after.records}
    return section(
        "pairs",
        title,
        note(
            "Images are shown as they were compared: whole, brought to a square. One of "
            "the two may be mirrored, turned, cropped, shifted, brighter, or carry marks."
        ),
        tag(
            "div",
            *(
                _pair(number, pair, twins.names, now)
                for number, pair in enumerate(twins.pairs, start=1)
            ),
            class_="sheet",
        ),
    )


def _pair(
    number: int, pair: Pair, names: Mapping[str, str], now: Mapping[str, str]
) -> Html:
    faint = pair.firmness < CLEAR and pair.alike < IDENTICAL
    by = []
    if pair.standing:
        by.append(f"correlation {pair.alike:.2f}, stands out {pair.standing:.0f} times")
    if pair.common:
        by.append(f"{pair.common + 1:.0f} times as many patches in common")
    told = f"Pair {number}: {'; '.join(by)}; joined as '{now[pair.first.id]}'. "
    sides = (_side(one, names[one.id]) for one in (pair.first, pair.second))
    return tag(
        "div",
        tag("p", told, tag("span", "Look closely.", class_="faint") if faint else ""),
        tag("div", *sides, class_="sides"),
        class_="match",
    )


def _side(record: Record, name: str) -> Html:
    facts = [("image", name), ("unit", record.unit)]
    facts += [("label", record.label)] if record.label else []
    return tag(
        "div",
        tag("img", src=_address(record), alt=f"image {name}"),
        tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in facts)),
    )


def _address(record: Record) -> str:
    """The image inside the page; pixels only, nothing of what stands beside them."""
    pixels, _ = images.load(record, SHOWN)
    stream = io.BytesIO()
    Image.fromarray(pixels.movedim(0, -1).numpy()).save(stream, "JPEG", quality=QUALITY)
    return (
        f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    )
