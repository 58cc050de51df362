"""The parts of the page that show pictures and facts, as HTML.

Pictures are written into the page itself: none of them, a patient's least of all, is
ever a file of the web server.
"""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgmedgen.gate.release import Neighbour, Verdict
from vgmedgen.studio.work import Exported, Picture, Series, Studio

SHOWN_DIGITS = 16  # of a digest or a key
ROOMY = 8  # pictures; more are shown smaller, their reasons only when selected


def head(studio: Studio) -> str:
    """Site and release, and the banner where the gate cannot run."""
    model = studio.model
    signer = model.coordinator[:SHOWN_DIGITS] if model.coordinator else ""
    signed = f"signed by {signer}…" if signer else "not signed (a simulation's)"
    facts = [
        ("Site", studio.site.name),
        ("Release", model.name[:SHOWN_DIGITS]),
        ("Run", model.run),
        ("Origin", f"{signed}{', ' + model.created[:10] if model.created else ''}"),
    ]
    told = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>"
        for name, fact in facts
    )
    return (
        '<header class="vg-head"><div class="vg-title"><h1>VG-MedGen studio</h1>'
        "<p>Synthetic images, drawn and kept on this computer</p></div>"
        f"<dl>{told}</dl></header>{_banner(studio)}"
    )


def empty() -> str:
    """The place of the pictures before there are any."""
    return (
        '<div class="vg-empty"><p><b>No images yet</b></p><p>Choose what the images '
        "should show, then press Generate.</p></div>"
    )


def grid(series: Series) -> str:
    """One button per picture, with what the gate says of it."""
    waiting = series.wish.count - len(series.pictures)
    cards = [_card(place, picture) for place, picture in enumerate(series.pictures)]
    cards += ['<div class="vg-card vg-waiting" aria-hidden="true"></div>'] * waiting
    many = " vg-many" if len(cards) > ROOMY else ""
    return (
        f'<div class="vg-grid{many}" role="group" aria-label="Images">'
        f"{''.join(cards)}</div>"
    )


def closer(picture: Picture, neighbours: Sequence[Neighbour]) -> str:
    """One picture large, its facts, and the real images that are most like it."""
    ask, verdict = picture.drawn.ask, picture.verdict
    facts = [("Verdict", _verdict(verdict)), ("Seed", str(ask.seed))]
    facts.append(("Prompt", ask.prompt))
    if ask.anatomy:
        facts.append(("Anatomy from", ask.anatomy))
    if ask.style:
        facts.append(("Style from", ask.style))
    if verdict is not None:
        facts.append(("Distance", f"{verdict.distance:.3f} to the nearest real image"))
    told = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>"
        for name, fact in facts
    )
    title = f"Image {ask.number + 1}"
    return (
        '<section class="vg-closer" aria-live="polite">'
        f'<figure class="vg-chosen {_state(verdict)}">'
        f'<img src="{_inline(picture.drawn.pixels)}" alt="{title}, synthetic">'
        f"<figcaption>{title}</figcaption></figure>"
        f'<dl class="vg-facts">{told}</dl>{_neighbours(neighbours)}</section>'
    )


def notice(text: str, kind: str = "info") -> str:
    """One line that tells how it stands: info, done or error."""
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<p class="vg-notice vg-{kind}" role="{role}">{escape(text)}</p>'


def exported(told: Exported) -> str:
    """Where an export lies, and a link to take it along."""
    name = escape(told.folder.name)
    images = "1 image" if told.images == 1 else f"{told.images} images"
    kind = "cleared" if told.cleared else "marked as not cleared"
    return (
        f'<p class="vg-notice vg-done" role="status">{images}, {kind}, in '
        f"<code>{escape(str(told.folder))}</code> "
        f'<a href="exports/{name}.zip" download="{name}.zip">Download as zip</a></p>'
    )


def _banner(studio: Studio) -> str:
    if studio.gate is not None:
        return ""
    after = (
        "The site's policy lets such images out: an export marks each as not cleared."
        if studio.ungated
        else "Images can be looked at and not be exported."
    )
    why = f"{studio.why_no_gate[:1].upper()}{studio.why_no_gate[1:]}."
    return (
        '<div class="vg-banner" role="alert"><b>Nothing compares these images with this '
        f"site's own.</b> {escape(after)} <span>{escape(why)}</span></div>"
    )


def _card(place: int, picture: Picture) -> str:
    ask, verdict = picture.drawn.ask, picture.verdict
    why = "" if verdict is None or verdict.cleared else verdict.reason
    note = f'<span class="vg-why">{escape(why)}</span>' if why else ""
    return (
        f'<button type="button" class="vg-card {_state(verdict)}" data-place="{place}" '
        f'aria-pressed="false" title="{escape(why)}">'
        f'<img src="{_inline(picture.drawn.pixels)}" alt="Image {ask.number + 1}">'
        f'<span class="vg-row"><span class="vg-badge">{_short(verdict)}</span>'
        f'<span class="vg-seed">seed {ask.seed}</span></span>{note}</button>'
    )


def _neighbours(neighbours: Sequence[Neighbour]) -> str:
    if not neighbours:
        return ""
    cards = "".join(
        f'<figure><img src="{_inline(near.pixels)}" alt="Real image">'
        f"<figcaption><b>{near.distance:.3f}</b> {escape(near.image.name)}</figcaption>"
        "</figure>"
        for near in neighbours
    )
    return (
        '<div class="vg-near"><h2>Nearest real images</h2><p>Patients of this site, with '
        "their distance to the image. For your eyes only: they are never exported.</p>"
        f'<div class="vg-reals">{cards}</div></div>'
    )


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not compared"
    if verdict.cleared:
        return "cleared: no more like a patient of this site than other patients are"
    return f"held back: {verdict.reason}"


def _short(verdict: Verdict | None) -> str:
    if verdict is None:
        return "Not compared"
    return "Cleared" if verdict.cleared else "Held back"


def _state(verdict: Verdict | None) -> str:
    if verdict is None:
        return "vg-unknown"
    return "vg-cleared" if verdict.cleared else "vg-held"


def _inline(pixels: NDArray[np.uint8]) -> str:
    """A PNG as a data URL."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
