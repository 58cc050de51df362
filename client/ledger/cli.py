"""`vgmedgen-client ledger`: what a site has spent of its units' privacy."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.options import HERE, Where, folder_of

if TYPE_CHECKING:
    from vgmedgen.config.plan import RunPlan

app = typer.Typer(
    no_args_is_help=True, help="What this site has spent of its units' privacy."
)

Folder = Annotated[Path, typer.Argument(help="the site's folder, with its site.yaml")]
Given = Annotated[
    Path | None,
    typer.Argument(help="the site's folder, with its site.yaml; or say it by --site"),
]


@app.command(
    "show",
    epilog="example: vgmedgen-client ledger show /srv/site --for run.yaml",
)
def show(
    folder: Given = None,
    site: Where = HERE,
    planned: Annotated[
        list[str] | None,
        typer.Option(
            "--for", help="what a run would cost: its run.yaml, or key=value, repeated"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print what is spent, the limit, and what another run would cost."""
    import json

    from vgmedgen.privacy.ledger import Ledger
    from vgmedgen.privacy.statement import statement, told
    from vgmedgen.site.config import load_config

    folder = folder or folder_of(site)
    config = load_config(folder / "site.yaml")
    found = statement(
        Ledger.read(folder, config.name),
        limit=config.privacy.epsilon,
        delta=config.privacy.delta,
        plan=_plan(planned) if planned else None,
    )
    print(json.dumps(found, indent=2) if as_json else told(found))


@app.command("verify", epilog="example: vgmedgen-client ledger verify --site /srv/site")
def verify(folder: Given = None, site: Where = HERE) -> None:
    """Check every row, its place in the chain, the members, and what was answered."""
    from client import history
    from vgmedgen.privacy import facts
    from vgmedgen.privacy.ledger import Ledger
    from vgmedgen.site.config import load_config

    folder = folder or folder_of(site)
    name = load_config(folder / "site.yaml").name
    rows = Ledger.read(folder, name).verify()
    history.check(folder, facts.rounds(rows))
    print(f"{folder} is whole: {len(rows)} rows of site {name}")
    print(f"head {rows[-1].hash}")


@app.command(
    "rows", epilog="example: vgmedgen-client ledger rows /srv/site > facts.jsonl"
)
def rows(folder: Given = None, site: Where = HERE) -> None:
    """Print all facts as JSON lines, for an accountant of your own choice."""
    from vgmedgen.privacy.ledger import Ledger
    from vgmedgen.site.config import load_config

    folder = folder or folder_of(site)
    name = load_config(folder / "site.yaml").name
    print(Ledger.read(folder, name).to_json(), end="")


@app.command("cohort", epilog="example: vgmedgen-client ledger cohort /srv/site")
def cohort(folder: Given = None, site: Where = HERE) -> None:
    """Open a new cohort for the data as they are now.

    Units of an earlier cohort keep what they spent: the same unit is one of the same
    name, or one that has any image in common, also through several cohorts.
    """
    from vgmedgen.site.folder import Site

    opening = Site(folder or folder_of(site))
    book = opening.ledger()
    before = book.cohorts()
    number = book.open_cohort(opening.members(), opening.unit_kind)
    opened = book.cohorts()[-1]
    if before and before[-1].number == number:
        print(f"the data are those of cohort {number}; nothing was opened")
        return
    print(
        f"cohort {number}: {opened.units} units ({opened.unit}), {opened.images} images"
    )
    print(
        "units that an earlier cohort held, by name or by any image, keep what they spent"
    )


@app.command(
    "export", epilog="example: vgmedgen-client ledger export /srv/site moved.sqlite"
)
def export(
    folder: Folder, out: Annotated[Path, typer.Argument(help="file to write")]
) -> None:
    """Move the ledger out; nothing is booked here from then on."""
    from vgmedgen.privacy.ledger import Ledger
    from vgmedgen.site.config import load_config

    name = load_config(folder / "site.yaml").name
    Ledger.read(folder, name).export(out)
    print(f"the ledger of site {name} is in {out}; {folder} books nothing any more")
    print(f"on the new machine: vgmedgen-client ledger adopt {out.name} FOLDER")


@app.command(
    "adopt", epilog="example: vgmedgen-client ledger adopt moved.sqlite /srv/site"
)
def adopt(
    file: Annotated[Path, typer.Argument(help="what export wrote")], folder: Folder
) -> None:
    """Install an exported ledger in the site's new folder; it works once."""
    from vgmedgen.privacy.ledger import Ledger
    from vgmedgen.site.config import load_config

    name = load_config(folder / "site.yaml").name
    rows = Ledger.adopt(file, folder, name).rows()
    print(f"{folder} holds the ledger of site {name}: {len(rows)} rows")


def _plan(words: list[str]) -> "RunPlan":
    from vgmedgen.config.load import load_file, load_run
    from vgmedgen.errors import ConfigError

    if len(words) == 1 and "=" not in words[0]:
        path = Path(words[0])
        if not path.is_file():
            raise ConfigError(
                f"there is no {path}; --for takes a run.yaml or key=value"
            )
        return load_file(path).plan
    return load_run(words).plan
