"""The studio's one page: choose on the left, look and export on the right."""

import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes import Base

from vgmedgen.config.run import DRAWING_STEPS, GUIDANCE
from vgmedgen.errors import VGMedGenError
from vgmedgen.studio import cards
from vgmedgen.studio.words import Picker, classes, pickers, sentence
from vgmedgen.studio.work import (
    MOST_GUIDANCE,
    MOST_IMAGES,
    MOST_SEED,
    MOST_STEPS,
    Series,
    Studio,
    Wish,
)

HERE = Path(__file__).parent
CSS = (HERE / "studio.css").read_text(encoding="utf-8")
SELECT = (HERE / "studio.js").read_text(encoding="utf-8")
LAYOUTS = {
    "plain": "Plain folder",
    "ham10000": "As HAM10000",
    "busi": "As BUSI",
    "kvasir-seg": "As Kvasir-SEG",
}
MODALITIES = {
    "dermoscopy": "Dermoscopy",
    "ultrasound": "Breast ultrasound",
    "endoscopy": "Endoscopy",
    "": "Other images",
}
GROUPS = {"anatomy": "Anatomy", "style": "Style", "person": "Patient"}
AT_ONCE: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}
IN_TURN: dict[str, Any] = {  # one job at a time, whoever presses
    "show_progress": "hidden",
    "api_visibility": "private",
    "trigger_mode": "once",
    "concurrency_limit": 1,
    "concurrency_id": "studio",
}

log = logging.getLogger(__name__)


def theme() -> Base:
    """Plain, with the fonts that the computer has."""
    plain = ("system-ui", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif")
    mono = ("ui-monospace", "Consolas", "Menlo", "monospace")
    return Base(
        primary_hue="sky",
        neutral_hue="slate",
        radius_size="sm",
        text_size="sm",
        spacing_size="sm",
        font=plain,
        font_mono=mono,
    ).set(
        # dark enough for white words, in both of the browser's schemes
        button_primary_background_fill="#075985",
        button_primary_background_fill_dark="#075985",
        button_primary_background_fill_hover="#0c4a6e",
        button_primary_background_fill_hover_dark="#0c4a6e",
        button_primary_text_color="white",
        slider_color="#075985",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def build(studio: Studio) -> gr.Blocks:
    """The page for one studio; whoever serves it adds theme and style."""
    page = gr.Blocks(
        title=f"VG-MedGen studio, {studio.site.name}",
        analytics_enabled=False,
        fill_width=True,
    )
    with page:
        gr.HTML(cards.head(studio), elem_classes="vg-top")
        series = gr.State(None)
        with gr.Row(elem_classes="vg-main"):
            with gr.Column(scale=4, min_width=380, elem_classes="vg-left"):
                asked, button = _left(studio)
            with gr.Column(scale=9, min_width=560, elem_classes="vg-right"):
                shown, told, closer, export = _right(studio)
        _on_generate(studio, button, asked, [series, shown, closer, told])
        _on_select(studio, shown, series, [closer, told])
        _on_export(studio, export, series, told)
    page.queue(default_concurrency_limit=1, max_size=8, api_open=False)
    return page


def _left(studio: Studio) -> tuple[list[gr.Component], gr.Button]:
    """What to show: the inputs of a wish, in the order of `_wish`, and the button."""
    modalities = studio.modalities
    first = modalities[0]
    modality = gr.Radio(
        [(MODALITIES[name], name) for name in modalities],
        value=first,
        label="Modality",
        visible=len(modalities) > 1,
    )
    found = classes(studio.datasets, first)
    label = gr.Dropdown(
        found, value=found[0][1] if found else "", label="Class", elem_id="vg-class"
    )
    groups, boxes = _pickers(pickers(first))
    prompt = gr.Textbox(
        sentence(first, found[0][1] if found else "", {}),
        label="Prompt",
        info="Follows the choices above; edit it freely afterwards.",
        lines=3,
        max_lines=6,
        elem_id="vg-prompt",
    )
    with gr.Accordion("Anatomy or style from another caption", open=False):
        anatomy = gr.Textbox(label="Anatomy from", lines=2, elem_id="vg-anatomy")
        style = gr.Textbox(label="Style from", lines=2, elem_id="vg-style")
    with gr.Row(elem_classes="vg-pickers"):
        count = gr.Slider(
            *(1, MOST_IMAGES, 4),
            step=1,
            label="Images",
            scale=3,
            min_width=180,
            buttons=[],
            elem_id="vg-count",
        )
        seed = gr.Number(
            0,
            label="Seed",
            precision=0,
            minimum=0,
            maximum=MOST_SEED,
            scale=2,
            min_width=100,
            elem_id="vg-seed",
        )
    with gr.Accordion("Drawing", open=False):
        steps = gr.Slider(1, MOST_STEPS, value=DRAWING_STEPS, step=1, label="Steps")
        guidance = gr.Slider(
            1, MOST_GUIDANCE, value=GUIDANCE, step=0.1, label="Guidance"
        )
    with gr.Row(elem_classes="vg-press"):
        button = gr.Button(
            "Generate", variant="primary", scale=3, elem_id="vg-generate"
        )
        fresh = gr.Button("New seed", scale=1, min_width=90, elem_id="vg-fresh")

    chosen = [modality, label, *boxes]
    gr.on(
        [label.input, *(box.input for box in boxes)],
        lambda kind, name, *words: sentence(kind, name or "", _said(words)),
        chosen,
        prompt,
        **AT_ONCE,
    )
    modality.input(
        lambda kind: _other_modality(studio, kind),
        modality,
        [label, *groups, *boxes, prompt],
        **AT_ONCE,
    )
    fresh.click(lambda: random.randrange(1_000_000), None, seed, **AT_ONCE)  # noqa: S311
    return [prompt, anatomy, style, label, count, seed, steps, guidance], button


def _pickers(
    found: Sequence[Picker],
) -> tuple[list[gr.Accordion], list[gr.Dropdown]]:
    """The groups, and a box per key in the order of `pickers`; the unsaid is hidden."""
    groups, boxes = [], []
    for group, title in GROUPS.items():
        own = [picker for picker in found if picker.group == group]
        with gr.Accordion(
            title, open=group == "anatomy", visible=_is_said(own)
        ) as accordion:
            groups.append(accordion)
            with gr.Row(elem_classes="vg-pickers"):
                boxes += [
                    gr.Dropdown(
                        _choices(picker),
                        value="",
                        label=picker.title,
                        visible=bool(picker.choices),
                        min_width=110,
                        elem_id=f"vg-{picker.key}",
                    )
                    for picker in own
                ]
    return groups, boxes


def _right(
    studio: Studio,
) -> tuple[gr.HTML, gr.HTML, gr.HTML, tuple[list[gr.Component], gr.Button]]:
    """Pictures, the line that tells how it stands, one picture closer, the export."""
    shown = gr.HTML(cards.empty(), js_on_load=SELECT, elem_id="vg-shown")
    told = gr.HTML("", elem_id="vg-told")
    closer = gr.HTML("", elem_id="vg-closer")
    with gr.Row(elem_classes="vg-export", equal_height=True):
        fitting = [(LAYOUTS[name], name) for name in studio.layouts]
        layout = gr.Dropdown(fitting, value=fitting[0][1], label="Layout of the export")
        kinds = [("DICOM", "dicom")]
        if studio.draws_masks:
            kinds.insert(0, ("Masks", "masks"))
        also = gr.CheckboxGroup(kinds, label="With", elem_id="vg-also")
        button = gr.Button(
            "Export as not cleared" if studio.ungated else "Export cleared images",
            interactive=studio.may_export,
            elem_id="vg-export",
        )
    return shown, told, closer, ([layout, also], button)


def _on_generate(
    studio: Studio, button: gr.Button, asked: list[Any], outputs: list[Any]
) -> None:
    def generate(*values: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - Gradio's
        keep = gr.skip()
        yield keep, keep, keep, cards.notice("Drawing. The first images take longest.")
        try:
            for found in studio.draw(_wish(values)):
                yield found, cards.grid(found), "", cards.notice(_progress(found))
        except Exception as error:  # noqa: BLE001 - told in one line, whatever it is
            yield keep, keep, keep, cards.notice(_line(error), "error")

    button.click(generate, asked, outputs, **IN_TURN)


def _on_select(
    studio: Studio, shown: gr.HTML, series: gr.State, outputs: list[Any]
) -> None:
    def select(found: Series | None, event: gr.EventData) -> tuple[Any, Any]:
        place = getattr(event, "place", None)
        if found is None or not isinstance(place, int):
            return gr.skip(), gr.skip()
        if not 0 <= place < len(found.pictures):  # of a series that is gone
            return gr.skip(), gr.skip()
        picture = found.pictures[place]
        try:
            return cards.closer(picture, studio.nearest(picture)), gr.skip()
        except Exception as error:  # noqa: BLE001 - told in one line, whatever it is
            return gr.skip(), cards.notice(_line(error), "error")

    shown.select(select, series, outputs, **IN_TURN)


def _on_export(
    studio: Studio,
    asked: tuple[list[gr.Component], gr.Button],
    series: gr.State,
    told: gr.HTML,
) -> None:
    def export(found: Series | None, layout: str, also: list[str]) -> Iterator[str]:
        yield cards.notice("Writing the export.")
        try:
            yield cards.exported(
                studio.export(
                    found or Series(Wish(prompt="")),
                    layout=layout,
                    masks="masks" in also,
                    dicom="dicom" in also,
                )
            )
        except Exception as error:  # noqa: BLE001 - told in one line, whatever it is
            yield cards.notice(_line(error), "error")

    how, button = asked
    button.click(export, [series, *how], told, **IN_TURN)


def _wish(values: Sequence[Any]) -> Wish:
    """From what the page holds; an emptied number is the least there is."""
    prompt, anatomy, style, label, count, seed, steps, guidance = values
    return Wish(
        prompt=prompt or "",
        anatomy=anatomy or "",
        style=style or "",
        label=label or "",
        count=int(count or 1),
        seed=int(seed or 0),
        steps=int(steps or 1),
        guidance=float(guidance or 1),
    )


def _other_modality(studio: Studio, modality: str) -> list[Any]:
    """Class, pickers and prompt of another modality."""
    found = classes(studio.datasets, modality)
    label = found[0][1] if found else ""
    told = pickers(modality)
    groups = [
        gr.update(visible=_is_said([p for p in told if p.group == group]))
        for group in GROUPS
    ]
    boxes = [
        gr.update(choices=_choices(picker), value="", visible=bool(picker.choices))
        for picker in told
    ]
    return [
        gr.update(choices=found, value=label),
        *groups,
        *boxes,
        sentence(modality, label, {}),
    ]


def _choices(picker: Picker) -> list[tuple[str, str]]:
    return [("any", ""), *((word, word) for word in picker.choices)]


def _is_said(found: Sequence[Picker]) -> bool:
    return any(picker.choices for picker in found)


def _said(words: Sequence[str | None]) -> dict[str, str]:
    keys = [picker.key for picker in pickers("")]
    return {key: word for key, word in zip(keys, words, strict=True) if word}


def _progress(found: Series) -> str:
    drawn, wanted = len(found.pictures), found.wish.count
    if drawn < wanted:
        return f"{drawn} of {wanted} drawn."
    judged = [p.verdict for p in found.pictures if p.verdict is not None]
    if not judged:
        return f"{drawn} drawn, none of them compared. Select one to see it closer."
    held = drawn - found.cleared
    return (
        f"{drawn} drawn: {found.cleared} cleared, {held} held back. Select one to see it "
        "closer."
    )


def _line(error: Exception) -> str:
    """What went wrong, in one line; the unforeseen is told in full in the terminal."""
    if isinstance(error, VGMedGenError):
        text = " ".join(str(error).split())
        return f"{text[:1].upper()}{text[1:]}."
    log.error("the studio met something unforeseen", exc_info=error)
    return (
        f"Something unforeseen went wrong ({type(error).__name__}); the terminal tells."
    )
