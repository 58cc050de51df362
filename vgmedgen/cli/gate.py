"""`vgmedgen gate`: compare images that were drawn elsewhere with the site's own."""

from pathlib import Path
from typing import Annotated

import typer

from vgmedgen.cli.shared import one_line, progress_of


def gate(
    images: Annotated[
        list[Path], typer.Argument(help="image files, or folders of them")
    ],
    site: Annotated[Path, typer.Option(help="folder of the site, or its site.yaml")],
    out: Annotated[
        Path | None, typer.Option(help="folder for the report, gate.html")
    ] = None,
) -> None:
    """Compare images of any origin with the site's own; exit 1 if any is held back.

    Nothing is moved or marked. `synthesize` does this by itself for what it draws.
    """
    from vgmedgen.gate import page
    from vgmedgen.gate.folder import files_of, judged
    from vgmedgen.gate.release import ReleaseGate
    from vgmedgen.site.config import FILE
    from vgmedgen.site.folder import Site

    paths = files_of(images)
    place = Site(site.parent if site.name == FILE else site)
    many = len(place.training) + len(place.heldout)
    what = f"Opening the release gate: {many:,} images of this site"
    with progress_of(what, ReleaseGate.steps(place)) as step:
        opened = ReleaseGate.of(place, progress=step)
    verdicts = []
    with progress_of("comparing", len(paths)) as step:
        for path, verdict in judged(opened, place.bundle.image_px, paths):
            verdicts.append(verdict)
            step(1)
            if not verdict.cleared:
                print(one_line(f"held back  {path}: {verdict.reason}"))
    held = sum(not verdict.cleared for verdict in verdicts)
    print(f"compared   {len(verdicts)}")
    print(f"cleared    {len(verdicts) - held}")
    print(f"held back  {held}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        page.write(opened.report(verdicts), out)
        print(f"report     {out / page.HTML}")
    if held:
        raise SystemExit(1)
