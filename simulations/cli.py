"""`vgmedgen-simulate`: the whole federated loop on virtual hospitals, once."""

from typing import Annotated

import typer

from vgmedgen.cli.shared import run_cli

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.command(
    epilog="example: vgmedgen-simulate experiment=ham10000-sources data.root=/data/ham10000"
)
def simulate(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="config overrides, such as experiment=NAME or seed=1"),
    ] = None,
) -> None:
    """Make the sites, train, release, install, synthesise, evaluate and report.

    Started again with the same words after a kill, it goes on where it stopped.
    """
    from vgmedgen.config.load import load_run

    config = load_run(overrides or [])  # a refusal waits for no heavy import
    from simulations.run import simulate as run

    done = run(config)
    print(f"release     {done.release}")
    for site, folder in done.synthetic.items():
        print(f"synthetic   {folder}  ({site})")
    print(f"report      {done.report}")


def main() -> None:
    """Entry point of the console script."""
    run_cli(app, "vgmedgen-simulate")
