"""`vgmedgen release`: look at a release and verify it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look at a release and verify it.")


@app.command("show", epilog="example: vgmedgen release show runs/demo/release")
def release_show(folder: Path) -> None:
    """Print what a release says of itself."""
    from vgmedgen.release.verify import digest, verify

    manifest = verify(folder)
    for name, fact in sorted(manifest.items()):
        if name != "files":
            print(f"{name}: {fact}")
    print(f"digest: {digest(manifest)}")


@app.command("verify", epilog="example: vgmedgen release verify runs/demo/release")
def release_verify(
    folder: Path,
    bundle: Annotated[
        Path | None, typer.Option("--base", help="base it must have been made for")
    ] = None,
) -> None:
    """Check every byte of a release against its manifest."""
    from vgmedgen.base import open_bundle
    from vgmedgen.release.verify import digest, verify

    manifest = verify(folder, open_bundle(bundle) if bundle else None)
    print(f"{folder} is whole: {len(manifest['files'])} files")
    print(f"digest {digest(manifest)}")
