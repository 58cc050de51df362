"""Check a release folder against its manifest, byte by byte."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgmedgen.base import Bundle
from vgmedgen.config.load import plan_from_json
from vgmedgen.config.plan import RunPlan
from vgmedgen.config.ranges import digest_of
from vgmedgen.errors import ConfigError, ReleaseError
from vgmedgen.files import sha256
from vgmedgen.release import facts
from vgmedgen.release.card import card
from vgmedgen.release.names import FILE_NAME, shown
from vgmedgen.release.signature import FILE as SIGNATURE
from vgmedgen.release.signature import LONGEST, Signature, check_own

MANIFEST = "manifest.json"
PLAN = "plan.json"
CARD = "README.md"
_LARGEST = 2**24  # bytes of a text that is read whole


def digest(manifest: Mapping[str, Any]) -> str:
    """Hash that names a release: two equal digests mean equal weights and facts."""
    return digest_of(manifest)


def manifest_json(manifest: Mapping[str, Any]) -> str:
    """A manifest as its file holds it."""
    return json.dumps(manifest, indent=2, sort_keys=True) + "\n"


def parts_of(folder: Path) -> dict[str, str]:
    """sha256 of every file that a manifest lists, by POSIX path, sorted.

    Raises:
        ReleaseError: if there is a link, or something else that is no file.
    """
    return {name: sha256(path) for name, path in _files(folder).items()}


def verify_bytes(folder: Path) -> dict[str, Any]:
    """Read the manifest after comparing every byte with it, and with its signature.

    What the manifest says is not looked at, see `verify`.

    Raises:
        ReleaseError: if a file is missing, changed or unlisted, or the manifest damaged.
        TrustError: if the signature is wrong.
    """
    manifest, signature = manifest_of(folder), signature_of(folder)
    listed, found = manifest["files"], _files(folder)
    try:
        for name in sorted(listed.keys() ^ found.keys()):
            raise _other(folder, name)  # before one is read: it may be of any size
        for name, path in found.items():
            if listed[name] != sha256(path):
                raise _other(folder, name)
    except OSError as error:
        raise ReleaseError(
            f"release {folder} cannot be read: {error.strerror or error}"
        ) from None
    if signature is not None:
        check_own(signature, manifest)
    return manifest


def verify(folder: Path, bundle: Bundle | None = None) -> dict[str, Any]:
    """Read the manifest after checking every byte of the release and what it says.

    A signature has to be that of this release by the key it names; whether to trust that
    key is another question, see `vgmedgen.release.signature.check`.

    Args:
        folder: the release.
        bundle: the base it must have been made for; None leaves that open.

    Raises:
        ReleaseError: if it has another form, a file is missing, changed or unlisted, or
            the base is another.
        TrustError: if the signature is wrong.
    """
    check_form(folder)
    manifest = verify_bytes(folder)
    facts.check(manifest, plan_of(folder))
    if _text(folder / CARD) != card(manifest):
        raise ReleaseError(
            f"release {folder}: {CARD} is not the card that this version makes of "
            f"{MANIFEST}; ask the coordinator to publish the release with this version"
        )
    if bundle is not None and manifest["base"] != bundle.digest:
        raise ReleaseError(
            f"release {folder} was made for base {manifest['base'][:12]}, this site holds "
            f"{bundle.digest[:12]}; install that base first"
        )
    return manifest


def check_form(folder: Path) -> None:
    """Refuse a release of another form; asked before anything else of it is read.

    What has no manifest of any form is left to `manifest_of`.

    Raises:
        ReleaseError: saying which version is the older one.
    """
    told = _listing(_text(folder / MANIFEST))
    if told is not None:
        facts.check_form(told)


def plan_of(folder: Path) -> RunPlan:
    """The plan that the run of a release had.

    Raises:
        ReleaseError: if it is not there, or damaged.
    """
    path = folder / PLAN
    text = _text(path)
    try:
        plan = plan_from_json(text)
    except ConfigError:
        raise _damaged(path) from None
    if plan.to_json() != text:
        raise _damaged(path)
    return plan


def signature_of(folder: Path) -> Signature | None:
    """The signature in a release folder; None where nobody signed.

    Raises:
        ReleaseError: if it is damaged.
    """
    path = folder / SIGNATURE
    return Signature.from_json(_text(path, LONGEST)) if path.exists() else None


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest in a release folder; of the files nothing is looked at.

    Raises:
        ReleaseError: if it is not there, or not to the letter what a manifest is.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ReleaseError(f"{folder} is no release: it has no {MANIFEST}")
    text = _text(path)
    manifest = _parsed(text)
    if manifest is None or manifest_json(manifest) != text:
        raise _damaged(path)
    return manifest


def manifest_from(text: str) -> dict[str, Any]:
    """A manifest that came in a message.

    Raises:
        ReleaseError: if it is none, or of another form.
    """
    told = _listing(text)
    if told is not None:
        facts.check_form(told)
    manifest = _parsed(text)
    if manifest is None:
        raise ReleaseError("the manifest of the release is none; nothing was installed")
    return manifest


def _parsed(text: str) -> dict[str, Any] | None:
    """What is JSON with a list of files such as a release has; None for anything else."""
    told = _listing(text)
    named = told is not None and all(map(FILE_NAME.fullmatch, told["files"]))
    return told if named else None


def _listing(text: str) -> dict[str, Any] | None:
    """What is JSON with a list of files, whatever their names; None for anything else."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    listed = told.get("files") if isinstance(told, dict) else None
    return told if isinstance(listed, dict) else None


def _files(folder: Path) -> dict[str, Path]:
    """The files that a manifest lists, by POSIX path, sorted; none of them is read.

    Raises:
        ReleaseError: if there is a link, or something else that is no file.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ReleaseError(
                f"release {folder}: {shown(name)} is no plain file; remove it"
            )
        if path.is_file() and name not in (MANIFEST, SIGNATURE):
            found[name] = path
    return found


def _text(path: Path, largest: int = _LARGEST) -> str:
    """A text file of a release; an empty one where there is none."""
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as stream:
            content = stream.read(largest + 1)
    except OSError as error:
        raise ReleaseError(
            f"{path} cannot be read: {error.strerror or error}"
        ) from None
    try:
        if len(content) <= largest:
            return content.decode()
    except UnicodeDecodeError:
        pass
    raise _damaged(path)


def _other(folder: Path, name: str) -> ReleaseError:
    return ReleaseError(
        f"release {folder}: {shown(name)} is not what the manifest lists; fetch the "
        "release again"
    )


def _damaged(path: Path) -> ReleaseError:
    return ReleaseError(f"{path} is damaged; fetch the release again")
