"""`vgmedgen-client install` and `models`: releases at a site, as its officer sees them."""

from pathlib import Path
from typing import Annotated

import typer

from client.options import HERE, AsJson, By, Where, folder_of, officer

app = typer.Typer(help="The releases installed here, and the one in use.")

Name = Annotated[
    str,
    typer.Argument(help="of an installed release, or how it begins", metavar="NAME"),
]


def install(
    source: Annotated[
        Path,
        typer.Argument(help="a .vgrel file, or a release folder", metavar="RELEASE"),
    ],
    site: Where = HERE,
    allow_downgrade: Annotated[
        bool,
        typer.Option(
            "--allow-downgrade", help="also a release older than the one in use"
        ),
    ] = False,
    by: By = "",
) -> None:
    """Install a release that was carried here: for a site that was offline.

    It must be signed by a key that policy.coordinators of site.yaml lists. Its weights
    are read as the exchange schema has them, the release is built anew from them and
    compared; nothing else of the file is used.
    """
    from client.models import decisions

    folder, name = folder_of(site), officer(by)
    done = decisions.install(folder, source, name, allow_downgrade=allow_downgrade)
    print(f"release {done.digest}")
    print(f"of run {done.run}, signed on {done.created} by {done.coordinator}")
    if not done.current:
        from vgmedgen.release.fitness import why_not

        print(f"is installed, and NOT in use: {why_not(done.folder)}")
        print(
            f"to use it all the same: vgmedgen-client models use {done.name} --overrule"
        )
        raise typer.Exit(1)
    print(f"is installed and in use: {done.folder}")


@app.callback(invoke_without_command=True)
def _default(
    context: typer.Context, site: Where = HERE, as_json: AsJson = False
) -> None:
    """The releases installed here, and the one in use; without a verb: list them."""
    if context.invoked_subcommand is None:
        _print(folder_of(site), as_json=as_json)


@app.command("list", epilog="example: vgmedgen-client models list --json")
def show(site: Where = HERE, as_json: AsJson = False) -> None:
    """List the releases installed here; * marks the one in use, ! one held back."""
    _print(folder_of(site), as_json=as_json)


@app.command("use", epilog="example: vgmedgen-client models use 1a2b3c4d")
def use(
    name: Name,
    site: Where = HERE,
    overrule: Annotated[
        bool,
        typer.Option(
            "--overrule", help="also one that is worse here than what was in use"
        ),
    ] = False,
    by: By = "",
) -> None:
    """Use a release that is installed here, after a look at every byte of it."""
    from client.models import decisions

    chosen = decisions.use(folder_of(site), name, officer(by), overrule=overrule)
    print(f"release {chosen.name} of run {chosen.run} is in use")


@app.command("roll-back", epilog="example: vgmedgen-client models roll-back")
def roll_back(site: Where = HERE, by: By = "") -> None:
    """Use the release again that was in use before."""
    from client.models import decisions

    before = decisions.roll_back(folder_of(site), officer(by))
    print(f"release {before.name} of run {before.run} is in use again")


@app.command("verify", epilog="example: vgmedgen-client models verify")
def verify(
    name: Annotated[
        str, typer.Argument(help="only this release", metavar="[NAME]")
    ] = "",
    site: Where = HERE,
) -> None:
    """Check every byte of what is installed, every signature, and whose key it is."""
    from client.models import decisions
    from vgmedgen.cli.shared import one_line
    from vgmedgen.errors import VGMedGenError

    store, refused = decisions.trusting(folder_of(site)), 0
    for one in [store.find(name)] if name else store.all():
        try:
            store.verify(one.digest)
        except VGMedGenError as error:
            refused += 1
            print(one_line(f"✗ {one.name}  {error} [{error.code}]"))
        else:
            signed = (
                f"signed by {one.coordinator[:16]}" if one.coordinator else "unsigned"
            )
            print(f"✓ {one.name}  every byte is as it was installed, {signed}")
    if refused:
        raise typer.Exit(1)


@app.command("remove", epilog="example: vgmedgen-client models remove 1a2b3c4d")
def remove(name: Name, site: Where = HERE, by: By = "") -> None:
    """Remove a release that is not in use."""
    from client.models import decisions

    gone = decisions.remove(folder_of(site), name, officer(by))
    print(f"release {gone.name} of run {gone.run} is removed")


def _print(folder: Path, *, as_json: bool) -> None:
    import json

    from client.models import decisions
    from client.standing import table

    found = decisions.rows(folder)
    if as_json:
        print(json.dumps(found, indent=2))
    elif found:
        head = ("", "name", "run", "created", "signed by", "installed")
        lines: list[tuple[str, ...]] = [head]
        for one in found:
            told = [
                str(one[key])[:length] or "-"
                for key, length in (
                    ("name", 16),
                    ("run", 64),
                    ("created", 25),
                    ("signed_by", 16),
                    ("installed", 25),
                )
            ]
            mark = "*" if one["current"] else "!" if one["held_back"] else ""
            lines.append((mark, *told))
        print("\n".join(table(lines)))
        if any(one["held_back"] and not one["current"] for one in found):
            print("! worse here than what was in use; models use NAME says by how much")
    else:
        print("no release is installed here yet")
