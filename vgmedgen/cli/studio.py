"""`vgmedgen studio`: a page on this computer for drawing, looking and exporting."""

from pathlib import Path
from typing import Annotated

import typer

from vgmedgen.cli.shared import progress_of


def studio(
    site: Annotated[Path, typer.Option(help="the site's folder, or its site.yaml")],
    port: Annotated[int, typer.Option(help="on 127.0.0.1; 0 takes any")] = 7860,
    model: Annotated[
        str | None, typer.Option(help="an installed release; default: the one in use")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Open a page for a clinician: draw images, compare them, export what is cleared.

    The page is served to this computer alone and needs no network.
    """
    from vgmedgen.site.folder import Site
    from vgmedgen.studio import serve
    from vgmedgen.studio.work import Studio
    from vgmedgen.synthesis.job import model_of

    serve.check_installed()
    hospital = Site(site.parent if site.is_file() else site)
    found = model_of(hospital, model or "")
    with serve.workplace(hospital.folder), serve.listening(port) as held:
        total = sum(len(dataset.records) for dataset in hospital.datasets)
        with progress_of("looking at the site's own images", total) as advance:
            work = Studio(hospital, found, device=device, progress=advance)
        serve.serve(work, held, lambda address: print(_told(address), flush=True))


def _told(address: str) -> str:
    return f"studio on {address}\nopen this address on this computer; stop with Ctrl-C"
