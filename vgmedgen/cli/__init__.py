"""`vgmedgen`: what anyone with images, a base bundle or a release can do.

Exit 0 done, 1 refused (one line: what, where, limit, what to do, code), 2 misuse. Heavy
imports happen inside the verbs, so that `--help` stays fast.
"""

import typer

from vgmedgen.cli import audit, base, data, gate, release, studio, synthesize
from vgmedgen.cli.shared import run_cli

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(base.app, name="base")
app.add_typer(data.app, name="data")
app.add_typer(release.app, name="release")
app.command(
    epilog="example: vgmedgen synthesize 'a dermoscopic image of a melanoma' --count 16 "
    "--site site.yaml --out drawn"
)(synthesize.synthesize)
app.command(epilog="example: vgmedgen gate images --site site.yaml --out report")(
    gate.gate
)
app.command(epilog="example: vgmedgen studio --site site.yaml")(studio.studio)
app.command(epilog="example: vgmedgen audit runs/demo/sites/hospital-a")(audit.audit)


def main() -> None:
    """Entry point of the console script."""
    run_cli(app, "vgmedgen")
