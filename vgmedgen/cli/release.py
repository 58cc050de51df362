"""`vgmedgen release`: look at a release and verify it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vgmedgen.release.signature import Signature

app = typer.Typer(no_args_is_help=True, help="Look at a release and verify it.")

Source = Annotated[
    Path, typer.Argument(metavar="PATH", help="folder of a release, or a .vgrel file")
]
Keys = Annotated[
    list[str] | None,
    typer.Option("--key", help="key that may have signed it: 64 hex digits, or a file"),
]


@app.command("show", epilog="example: vgmedgen release show runs/demo/release")
def release_show(
    path: Source,
    keys: Keys = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print what a release says of itself, after checking every byte of it."""
    from vgmedgen.release import signature as signing
    from vgmedgen.release.archive import opened
    from vgmedgen.release.verify import digest, signature_of, verify

    trusted = [_key(word) for word in keys or ()]
    with opened(path) as folder:
        manifest, signed = verify(folder), signature_of(folder)
    if trusted:
        signing.check(signed, manifest, trusted)
    if as_json:
        told = json.loads(signed.to_json()) if signed else None
        whole = {"digest": digest(manifest), "signature": told, "manifest": manifest}
        print(json.dumps(whole | {"key_checked": bool(trusted)}, indent=2))
        return
    rows = {"digest": digest(manifest), "signature": _signed(signed, trusted)}
    rows |= _readable(manifest)
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:{width}}  {text}")


@app.command("verify", epilog="example: vgmedgen release verify run-1.vgrel --key KEY")
def release_verify(
    path: Source,
    bundle: Annotated[
        Path | None, typer.Option("--base", help="base it must have been made for")
    ] = None,
    keys: Keys = None,
) -> None:
    """Check every byte of a release against its manifest and its signature."""
    from vgmedgen.base import open_bundle
    from vgmedgen.release import signature as signing
    from vgmedgen.release.archive import opened
    from vgmedgen.release.verify import digest, signature_of, verify

    trusted = [_key(word) for word in keys or ()]
    base = open_bundle(bundle) if bundle else None
    with opened(path) as folder:
        manifest, signed = verify(folder, base), signature_of(folder)
    if trusted:
        signing.check(signed, manifest, trusted)
    print(f"{path} is whole: {len(manifest['files'])} files")
    print(f"digest {digest(manifest)}")
    print(_signed(signed, trusted))


def _key(word: str) -> str:
    """A public key that was given as its digits, or as the file `coordinator.pub`."""
    import re

    from vgmedgen.errors import ConfigError
    from vgmedgen.release.folders import is_there

    path = Path(word)
    text = word
    if not re.fullmatch("[0-9a-f]{64}", word) and is_there(path) and path.is_file():
        with path.open("rb") as stream:
            text = stream.read(200).decode(errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ConfigError(
            f"--key {word[:80]}: neither 64 hexadecimal digits nor a file of them; use the "
            "coordinator.pub that the coordinator gave you"
        )
    return text


def _signed(signed: "Signature | None", trusted: Sequence[str]) -> str:
    if signed is None:
        return "not signed"
    checked = "the key is one of yours" if trusted else "the key is not checked: --key"
    return f"signed by {signed.coordinator[:16]} on {signed.created} ({checked})"


def _readable(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The facts of a manifest as rows of text."""
    rows = {}
    for name, fact in manifest.items():
        if name == "files":
            continue
        text = ", ".join(fact) if isinstance(fact, list) else str(fact)
        if isinstance(fact, Mapping):
            text = ", ".join(
                f"{inner} {_words(value)}" for inner, value in fact.items()
            )
        rows[name.replace("_", " ")] = text or "not told"
    rows["files"] = ", ".join(sorted(manifest["files"]))
    return rows


def _words(value: object) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return f"({', '.join(f'{name} {inner}' for name, inner in value.items())})"
