"""`vgmedgen base`: build and verify base bundles."""

from pathlib import Path
from typing import Annotated

import typer

from vgmedgen.cli.shared import Overrides

app = typer.Typer(no_args_is_help=True, help="Build and verify base bundles.")


@app.command(
    "build",
    epilog="example: vgmedgen base build --out base-tiny model=tiny",
)
def base_build(
    out: Annotated[Path, typer.Option(help="folder of the new bundle")],
    overrides: Overrides = None,
    public: Annotated[
        list[str] | None,
        typer.Option("--data", help="public dataset as NAME:FOLDER; phantoms if none"),
    ] = None,
    licence: Annotated[
        str, typer.Option(help="licence of the public data, told in the manifest")
    ] = "not told",
) -> None:
    """Build a base bundle from phantoms or public images."""
    from vgmedgen.configfile import load_run
    from vgmedgen.data import adapters
    from vgmedgen.errors import ConfigError
    from vgmedgen.training.public import build_from, build_from_phantoms

    config = load_run(overrides or [])
    if out.exists():
        raise ConfigError(f"{out} exists; choose another folder or remove it")
    if not public:
        bundle = build_from_phantoms(out, config)
    else:
        named = [entry.partition(":") for entry in public]
        datasets = [adapters.read(kind, Path(root)) for kind, _, root in named]
        source = ", ".join(kind for kind, _, _ in named)
        bundle = build_from(out, datasets, config, source, licence)
    print(f"base bundle {bundle.folder}\ndigest {bundle.digest}")


@app.command("verify", epilog="example: vgmedgen base verify base-tiny")
def base_verify(folder: Path) -> None:
    """Check every byte of a base bundle against its manifest."""
    from vgmedgen.base import open_bundle

    bundle = open_bundle(folder)
    print(f"{folder} is whole: {len(bundle.manifest['files'])} files")
    print(f"digest {bundle.digest}")
