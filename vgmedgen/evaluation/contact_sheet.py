"""The contact sheet of a dataset: what will train, image by image, for a person's eye."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from vgmedgen.data import captions, images
from vgmedgen.data.attributes import measure, words
from vgmedgen.data.inspection import Inspection
from vgmedgen.data.records import Dataset
from vgmedgen.evaluation import markup
from vgmedgen.evaluation.markup import Html, document, note, plain, section, tag
from vgmedgen.trust.files import write_secret

SHOWN = 400  # images without a problem; more are spread over the dataset
DOUBTFUL = 200  # images of each kind of problem
PX = 128  # side at which images are shown and captioned
QUALITY = 85  # of their JPEG
_LINE = (0, 229, 255)  # colour of a mask's outline, with black outside of it
_SCALE = 2  # times that an image is enlarged before its outline is drawn


def write(
    dataset: Dataset,
    found: Sequence[Inspection],
    path: Path,
    advance: Callable[[int], None],
) -> None:
    """Write the page as a new file that its owner alone can read.

    Args:
        dataset: as an adapter read it.
        found: of each of its records.
        path: of the page.
        advance: told 1 after each image.

    Raises:
        StateError: if it cannot be written.
        TrustError: if the file exists.
    """
    write_secret(path, page(dataset, found, advance).encode())


def chosen(
    found: Sequence[Inspection],
) -> tuple[list[Inspection], list[Inspection], list[Inspection]]:
    """Those that are refused, those to look at, and an even choice of the others."""
    refused = [one for one in found if one.refused]
    odd = [one for one in found if one.cautions]
    plain_ones = [one for one in found if not (one.refused or one.cautions)]
    count = min(len(plain_ones), SHOWN)
    even = [plain_ones[place * len(plain_ones) // count] for place in range(count)]
    return refused[:DOUBTFUL], odd[:DOUBTFUL], even


def page(
    dataset: Dataset, found: Sequence[Inspection], advance: Callable[[int], None]
) -> str:
    """The page as HTML, with style and images inside."""
    style = markup.verdict_style(Path(__file__).with_suffix(".css"))
    refused, odd, others = chosen(found)
    main = tag(
        "main",
        _top(dataset, found),
        _refused(refused, found),
        _sheet(
            "odd",
            "Look at these first",
            "They can be read and would train as shown.",
            odd,
            dataset,
            advance,
        ),
        _sheet(
            "images",
            "What will train",
            _how(len(others), len(found) - len(refused) - len(odd)),
            others,
            dataset,
            advance,
        ),
    )
    return document(f"What will train: {dataset.name}", style, main)


def _top(dataset: Dataset, found: Sequence[Inspection]) -> Html:
    refused = sum(bool(one.refused) for one in found)
    odd = sum(bool(one.cautions) for one in found)
    if refused:
        word, colour = "cannot train", "red"
        told = (
            f"{refused} of {_images(len(found))} refused; no run trains here before they "
            "are mended or removed."
        )
    elif odd:
        word, colour = "look at some", "amber"
        told = f"Every image can be read; {odd} of {len(found)} deserve a look."
    else:
        word, colour = "can train", "green"
        told = f"{_images(len(found))} can be read, and nothing stands out."
    masked = [one.share for one in found if one.share > 0]
    tiles = [
        (plain(len(found), 0), "images"),
        (plain(len(dataset.units), 0), f"units ({dataset.unit_kind})"),
        (plain(len(masked), 0), "images with a lesion in their mask"),
        (
            f"{100 * float(np.median(masked)):.0f} %" if masked else markup.DASH,
            "median share of the image that a lesion covers",
        ),
    ]
    labels = Counter(one.record.label or "no label" for one in found)
    listed = ", ".join(f"{label}: {count}" for label, count in sorted(labels.items()))
    return tag(
        "header",
        tag(
            "p",
            "Shows images of patients and their file names: stays in the hospital",
            class_="over",
        ),
        tag("h1", f"What will train: {dataset.name}"),
        tag(
            "div",
            tag("span", word, class_="word"),
            tag("p", tag("strong", told), class_="lead"),
            tag(
                "p",
                "Each picture is shown as it trains: whole, upright, brought to a square. "
                "The line is the outline of its mask; no line means no lesion. The caption "
                "below is the text that it trains with.",
            ),
            class_=f"verdict {colour}",
        ),
        tag(
            "ul",
            *(tag("li", tag("b", value), tag("span", what)) for value, what in tiles),
            class_="figures",
        ),
        note(f"By label: {listed}."),
    )


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _how(shown: int, there: int) -> str:
    if shown == there:
        return f"{_images(there)}, all of them."
    return f"{shown} of {there} images, spread over the whole dataset."


def _refused(refused: Sequence[Inspection], found: Sequence[Inspection]) -> Html:
    if not refused:
        return Html()
    there = sum(bool(one.refused) for one in found)
    more = f" The first {len(refused)} of {there}." if there > len(refused) else ""
    return section(
        "refused",
        "Refused",
        note(f"What each file leaves in doubt, and what to do about it.{more}"),
        tag(
            "dl",
            *(
                tag("div", tag("dt", one.record.image.name), tag("dd", one.refused))
                for one in refused
            ),
            class_="refused",
        ),
    )


def _sheet(
    anchor: str,
    title: str,
    told: str,
    shown: Sequence[Inspection],
    dataset: Dataset,
    advance: Callable[[int], None],
) -> Html:
    if not shown:
        return Html()
    cards: list[Html] = []
    for one in shown:
        cards.append(_card(one, dataset.modality))
        advance(1)
    return section(anchor, title, note(told), tag("div", *cards, class_="sheet"))


def _card(one: Inspection, modality: str) -> Html:
    record = one.record
    image, mask = images.load(record, PX)
    said = words(measure(image, mask), modality)
    sentence = record.caption or captions.caption(record, modality, said)
    share = "no lesion" if one.share == 0 else f"lesion {100 * one.share:.1f} %"
    facts = " \N{MIDDLE DOT} ".join(filter(None, (record.label, share)))
    return tag(
        "figure",
        tag(
            "img",
            src=_address(image.movedim(0, -1).numpy(), mask[0].numpy() > 0),
            alt=f"{record.image.name} with the outline of its mask",
            loading="lazy",
        ),
        tag(
            "figcaption",
            tag("span", record.image.name, class_="name", title=str(record.image)),
            tag("span", facts, class_="facts"),
            *(tag("strong", caution, class_="caution") for caution in one.cautions),
            tag("span", sentence, class_="says"),
        ),
        class_="odd" if one.cautions else None,
    )


def _address(pixels: NDArray[np.uint8], lesion: NDArray[np.bool_]) -> str:
    """Image (H, W, 3) with the outline of its lesion (H, W), inside the page."""
    drawn = outlined(pixels, lesion)
    stream = io.BytesIO()
    Image.fromarray(drawn).save(stream, "JPEG", quality=QUALITY)
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}"


def outlined(pixels: NDArray[np.uint8], lesion: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image twice as large, a bright line within a dark one around the lesion."""
    large = pixels.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
    whole = torch.from_numpy(lesion.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1))
    grown = [
        functional.max_pool2d(whole[None].float(), 2 * by + 1, 1, by)[0] > 0
        for by in (2, 3)
    ]
    large[(grown[1] & ~whole).numpy()] = 0
    large[(grown[0] & ~whole).numpy()] = _LINE
    rim = np.ones(
        whole.shape, dtype=bool
    )  # a lesion that the picture cuts off ends there
    rim[_SCALE:-_SCALE, _SCALE:-_SCALE] = False
    large[rim & whole.numpy()] = _LINE
    return large
