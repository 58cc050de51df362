"""`vgmedgen audit`: attack a site's own engine, updates and models."""

import logging
from pathlib import Path
from typing import Annotated

import typer


def audit(
    folder: Annotated[Path, typer.Argument(help="the site's folder")],
    run: Annotated[
        str | None, typer.Option(help="run whose plan is audited; the latest if none")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="installed pipeline; the latest if none")
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="synthetic images; the site's own if none")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the page; SITE/audit if none")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="a minute or two: fewer attacks, part of the recorded training",
        ),
    ] = False,
) -> None:
    """Attack a site's own engine, updates and models; exit 1 if a claim is not kept.

    Nothing is sent and no privacy is spent. The page is for the site's own eyes.
    """
    from vgmedgen.audit import run as auditor
    from vgmedgen.audit.verdict import RED
    from vgmedgen.site.folder import Site

    site = Site(folder.resolve())
    place = out or folder / "audit"
    verdict = auditor.audit(
        site,
        site.plan_of(run),
        model=model,
        synthetic=synthetic,
        out=place,
        quick=quick,
        progress=logging.getLogger("vgmedgen").info,
    )
    print(f"{verdict.colour}: {verdict.headline}")
    for reason in verdict.reasons:
        print(f"  {reason}")
    print(f"page  {place / 'audit.html'}")
    if verdict.colour == RED:
        raise SystemExit(1)
