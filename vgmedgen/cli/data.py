"""`vgmedgen data`: look at a dataset before it trains."""

from pathlib import Path
from typing import Annotated

import typer

from vgmedgen.cli.shared import Root, one_line, progress_of
from vgmedgen.cli.twins import twins

app = typer.Typer(no_args_is_help=True, help="Look at a dataset before it trains.")
app.command(
    "twins",
    epilog="example: vgmedgen data twins busi /data/busi --out units.csv --page twins.html",
)(twins)

_NAMED = 5  # images that are told of each kind of fault

Identified = Annotated[
    bool,
    typer.Option("--identified", help="let in DICOM files that still name somebody"),
]
Grouping = Annotated[
    Path | None, typer.Option(help="csv (image, unit) of the images of one patient")
]


@app.command(
    "check", epilog="example: vgmedgen data check busi /data/busi --page check.html"
)
def data_check(
    dataset: str,
    root: Root,
    grouping: Grouping = None,
    identified: Identified = False,
    captions: Annotated[
        Path | None,
        typer.Option(help="csv (image, caption) that replaces all captions"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="contact sheet of what will train, for the site's own eyes"),
    ] = None,
) -> None:
    """Read a dataset whole: every image, mask and caption.

    With --page a person can see each image as it trains, the outline of its mask and its
    caption. That page shows patients' images; only its owner can read it.
    """
    from collections import Counter

    from vgmedgen.data import adapters, inspection
    from vgmedgen.errors import ConfigError
    from vgmedgen.evaluation import contact_sheet

    if page is not None and page.exists():
        raise ConfigError(f"{page} exists; choose another name or remove it")
    found = adapters.read(
        dataset, root, captions=captions, grouping=grouping, identified=identified
    )
    with progress_of("reading", len(found.records)) as advance:
        seen = inspection.inspect(found.records, inspection.Memory(), advance)
    labels = Counter(record.label for record in found.records)
    print(f"{found.name}: {len(found.records)} images, {len(found.units)} units")
    print(f"unit: {found.unit_kind}")
    for label, count in sorted(labels.items()):
        print(f"  {label or '(no label)'}: {count}")
    odd = [one for one in seen if one.cautions]
    for one in odd[:_NAMED]:
        print(one_line(f"look at {one.record.image.name}: {'; '.join(one.cautions)}"))
    if len(odd) > _NAMED:
        print(f"look at {len(odd) - _NAMED} more images" + ("" if page else ": --page"))
    if page is not None:
        shown = sum(map(len, contact_sheet.chosen(seen)[1:]))
        with progress_of("drawing", shown) as advance:
            contact_sheet.write(found, seen, page, advance)
        print(f"page   {page}, which shows patients' images: keep it in the hospital")
    for one in [one for one in seen if one.refused][1:_NAMED]:
        print(one_line(f"refused: {one.refused}"))
    inspection.check(seen, found.name)


@app.command("caption", epilog="example: vgmedgen data caption busi /data/busi c.csv")
def data_caption(
    dataset: str,
    root: Root,
    out: Path,
    grouping: Grouping = None,
    identified: Identified = False,
) -> None:
    """Write the captions that training would use, as csv."""
    import csv
    import io

    from vgmedgen.data import adapters, images
    from vgmedgen.data.attributes import measure, words
    from vgmedgen.data.captions import caption
    from vgmedgen.files import write_text

    found = adapters.read(dataset, root, grouping=grouping, identified=identified)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "caption"])
    with progress_of("captioning", len(found.records)) as advance:
        for record in found.records:
            image, mask = images.load(record, 128)
            spoken = words(measure(image, mask), found.modality)
            sentence = record.caption or caption(record, found.modality, spoken)
            table.writerow([record.image.name, sentence])
            advance(1)
    write_text(out, text.getvalue())
    print(f"{len(found.records)} captions in {out}")


@app.command(
    "prompts",
    epilog="example: vgmedgen data prompts train.json val.json test.json --out c.csv",
)
def data_prompts(
    files: Annotated[list[Path], typer.Argument(help="annotations of MedVLSM, JSON")],
    out: Annotated[Path, typer.Option(help="csv for data.captions")],
    prompt: Annotated[str, typer.Option(help="which of p0 to p9")] = "p6",
) -> None:
    """Turn prompts published for BUSI or Kvasir-SEG into a csv of captions."""
    from vgmedgen.data.prompts import from_medvlsm, write_captions

    pairs = from_medvlsm(files, prompt)
    write_captions(out, pairs)
    print(f"{len(pairs)} captions in {out}")


@app.command(
    "phantom", epilog="example: vgmedgen data phantom ultrasound out/ --count 50"
)
def data_phantom(
    modality: Annotated[str, typer.Argument(help="dermoscopy, ultrasound, endoscopy")],
    out: Path,
    count: int = 50,
    seed: int = 0,
    px: int = 128,
) -> None:
    """Draw phantoms in the layout of a published dataset."""
    from vgmedgen.data.layouts import LAYOUTS, write_phantoms
    from vgmedgen.data.phantom import tint_of
    from vgmedgen.errors import ConfigError

    if modality not in LAYOUTS:
        raise ConfigError(f"modality must be one of {', '.join(sorted(LAYOUTS))}")
    write_phantoms(modality, out, count, seed, px, tint_of(seed))
    print(f"{count} phantoms in {out}, layout of {LAYOUTS[modality]}")
