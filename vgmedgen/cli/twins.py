"""`vgmedgen data twins`: images of different units that show one picture."""

from pathlib import Path
from typing import Annotated

import typer

from vgmedgen.cli.shared import Root, progress_of


def twins(
    dataset: str,
    root: Root,
    out: Annotated[Path, typer.Option(help="csv for grouping in site.yaml")],
    page: Annotated[
        Path | None, typer.Option(help="page of the pairs, for the site's own eyes")
    ] = None,
    px: Annotated[
        int, typer.Option(help="side at which images are compared", min=64, max=1024)
    ] = 128,
    grouping: Annotated[
        Path | None, typer.Option(help="csv (image, unit) of what is known already")
    ] = None,
    identified: Annotated[
        bool,
        typer.Option(
            "--identified", help="let in DICOM files that still name somebody"
        ),
    ] = False,
) -> None:
    """Find pictures that stand in several units, and write units that keep them together.

    Compared is what the release gate compares: mirrored, turned, cropped, scaled,
    stretched, shifted and annotated copies are found. The page shows patients' images.
    """
    from vgmedgen.data import adapters
    from vgmedgen.errors import ConfigError
    from vgmedgen.gate import twins as search
    from vgmedgen.gate import twins_page

    for path in filter(None, (out, page)):
        if path.exists():
            raise ConfigError(f"{path} exists; choose another name or remove it")
    read = adapters.read(dataset, root, grouping=grouping, identified=identified)
    with progress_of("comparing", 2 * len(read.records)) as step:
        found = search.find(read, px, step)
    search.write(found, out)
    print(twins_page.headline(found))
    print(f"units  {out}")
    if page is not None:
        twins_page.write(found, out, page)
        print(f"page   {page}, which shows patients' images: keep it in the hospital")
