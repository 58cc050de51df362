"""Real images beside synthesised ones, inside the page itself."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vgmedgen.data import images
from vgmedgen.errors import DataError
from vgmedgen.evaluation.findings import Report, sites_of
from vgmedgen.evaluation.gating import passed
from vgmedgen.evaluation.markup import Html, join, note, section, tag

SIDE = 288  # px, longest side of an image in the page: twice the size it is shown at
_LONG = 300  # characters of a caption beyond which the rest is folded away


def inline(path: Path, *, synthetic: bool) -> tuple[str, str]:
    """An image as a `data:` address, and its size in pixels as it lies on disk.

    Only the pixels are taken over, not what a camera or a hospital wrote beside them.
    Large images are scaled down; a synthetic one says so in its PNG text.

    Raises:
        DataError: if the file is missing or holds no readable image.
    """
    picture = Image.fromarray(images.read(path))
    found = f"{picture.width} \N{MULTIPLICATION SIGN} {picture.height}"
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    told = PngInfo()
    if synthetic:
        told.add_text("Comment", "synthetic image, no patient")
    stream = io.BytesIO()
    Image.frombytes(picture.mode, picture.size, picture.tobytes()).save(
        stream, "PNG", optimize=True, pnginfo=told
    )
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"data:image/png;base64,{encoded}", found


def gallery(report: Report, folder: Path) -> Html:
    """Grid of pairs per site, each with the caption that the synthetic one was given.

    Args:
        report: its `images` name files, relative ones below `folder`.
        folder: of the report.
    """
    pairs_of = report.get("images") or {}
    sizes: set[str] = set()
    blocks: list[Html] = []
    for site in sites_of(report):
        pairs = [_pair(entry, folder, sizes) for entry in pairs_of.get(site) or ()]
        if pairs:
            blocks += [tag("h3", site), tag("div", *pairs, class_="pairs")]
    if not blocks:
        return Html()
    sized = f" Sizes on disk: {', '.join(sorted(sizes))} pixels." if sizes else ""
    return section(
        "images",
        "Real images beside synthesised ones",
        tag(
            "p",
            tag(
                "strong",
                "Images in a dashed frame are synthetic: they show no patient. ",
            ),
            passed(report),
            "Images in a plain frame are real: handle this page as you handle them. "
            "Nothing here is for diagnosis.",
            class_="warning",
        ),
        note(
            "Each synthetic image was drawn from the caption beneath it, which "
            "belongs to the real image beside it. The two should agree in what the "
            f"caption says, not in every detail.{sized} Shown enlarged or reduced."
        ),
        *blocks,
    )


def _pair(entry: Mapping[str, Any], folder: Path, sizes: set[str]) -> Html:
    caption = str(entry.get("caption") or "")
    seed = entry.get("seed")
    return tag(
        "figure",
        _frame(entry.get("real"), folder, sizes, synthetic=False, caption=caption),
        _frame(entry.get("synthetic"), folder, sizes, synthetic=True, caption=caption),
        tag(
            "figcaption",
            _caption(caption),
            tag("span", f"seed {seed}", class_="seed") if seed is not None else "",
        ),
        class_="pair",
    )


def _frame(
    name: str | None, folder: Path, sizes: set[str], *, synthetic: bool, caption: str
) -> Html:
    kind = "synthetic" if synthetic else "real"
    badge = tag("span", kind, class_="badge")
    if not name:
        content = tag("span", f"no {kind} image", class_="empty")
        return tag("div", badge, content, class_=f"frame {kind}")
    try:
        source, found = inline(folder / name, synthetic=synthetic)
    except DataError:
        # A finished run is not thrown away for one file: the hole is shown instead.
        content = tag("span", "image could not be read", class_="empty")
    else:
        sizes.add(found)
        words = f"{kind.capitalize()} image: {caption[:_LONG] or 'no caption'}"
        content = tag("img", src=source, alt=words, width="144", height="144")
    return tag("div", content, badge, class_=f"frame {kind}")


def _caption(caption: str) -> Html:
    if not caption:
        return tag("em", "no caption")
    if len(caption) <= _LONG:
        return tag("span", caption)
    start = caption[:_LONG].rsplit(" ", 1)[0]
    return join(
        (
            tag("span", f"{start} … "),
            tag("details", tag("summary", "whole caption"), tag("span", caption)),
        )
    )
