"""`vgmedgen base`: build and verify base bundles."""

import dataclasses
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
        str,
        typer.Option(
            help="licence of the public data and of pretrained weights, for the manifest"
        ),
    ] = "",
) -> None:
    """Build a base bundle from phantoms or public images."""
    from vgmedgen.config.load import load_run
    from vgmedgen.data import adapters
    from vgmedgen.errors import ConfigError

    config = load_run(overrides or [])
    if licence:
        base = dataclasses.replace(config.base, licence=licence)
        config = dataclasses.replace(config, base=base)
    named = [entry.partition(":") for entry in public or []]
    datasets = [adapters.read(kind, Path(root)) for kind, _, root in named]

    from vgmedgen.training.public import build_from, build_from_phantoms, building

    with building(out):
        if out.exists():
            raise ConfigError(f"{out} exists; choose another folder or remove it")
        if datasets:
            source = ", ".join(kind for kind, _, _ in named)
            bundle = build_from(out, datasets, config, source)
        else:
            bundle = build_from_phantoms(out, config)
    print(f"base bundle {bundle.folder}\ndigest {bundle.digest}")


@app.command("convert", epilog="example: vgmedgen base convert Bio_ClinicalBERT")
def base_convert(folder: Path) -> None:
    """Write safetensors beside the pickled weights (.bin) of a pretrained model."""
    from vgmedgen.training.convert import convert

    for path in convert(folder):
        print(f"wrote {path}")


@app.command("verify", epilog="example: vgmedgen base verify base-tiny")
def base_verify(folder: Path) -> None:
    """Check every byte of a base bundle against its manifest."""
    from vgmedgen.base import open_bundle

    bundle = open_bundle(folder)
    print(f"{folder} is whole: {len(bundle.manifest['files'])} files")
    print(f"digest {bundle.digest}")
