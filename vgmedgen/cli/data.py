"""`vgmedgen data`: look at a dataset before it trains."""

from pathlib import Path
from typing import Annotated

import typer

from vgmedgen.cli.shared import Root, progress_of
from vgmedgen.cli.twins import twins

app = typer.Typer(no_args_is_help=True, help="Look at a dataset before it trains.")
app.command(
    "twins",
    epilog="example: vgmedgen data twins busi /data/busi --out units.csv --page twins.html",
)(twins)

Identified = Annotated[
    bool,
    typer.Option("--identified", help="let in DICOM files that still name somebody"),
]
Grouping = Annotated[
    Path | None, typer.Option(help="csv (image, unit) of the images of one patient")
]


@app.command("check", epilog="example: vgmedgen data check busi /data/busi")
def data_check(
    dataset: str,
    root: Root,
    grouping: Grouping = None,
    identified: Identified = False,
) -> None:
    """Read a dataset whole: every image, mask and caption."""
    from collections import Counter

    from vgmedgen.data import adapters, images

    found = adapters.read(dataset, root, grouping=grouping, identified=identified)
    with progress_of("reading", len(found.records)) as advance:
        for record in found.records:
            images.load(record, 64)
            advance(1)
    labels = Counter(record.label for record in found.records)
    print(f"{found.name}: {len(found.records)} images, {len(found.units)} units")
    print(f"unit: {found.unit_kind}")
    for label, count in sorted(labels.items()):
        print(f"  {label or '(no label)'}: {count}")


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
