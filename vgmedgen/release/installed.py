"""One installed release: what it says of itself, and whether it is as it was.

Its manifest and its files were compared with what this software makes of the tensors when
it was installed. From then on bytes are compared, and not words: a release stays usable
after an update that words a model card differently.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgmedgen.errors import PolicyError, ReleaseError, TrustError
from vgmedgen.files import write_text
from vgmedgen.release.facts import is_run
from vgmedgen.release.folders import LINK, files_of
from vgmedgen.release.names import shown
from vgmedgen.release.signature import FILE as SIGNATURE
from vgmedgen.release.signature import Signature, check_own
from vgmedgen.release.verify import (
    MANIFEST,
    digest,
    manifest_json,
    manifest_of,
    signature_of,
    verify_bytes,
)

TOLD = "installed.json"
RELEASE = "release"
PIPELINE = "pipeline"
DAMAGED = "(damaged)"
NAME = re.compile("[0-9a-f]{16}")
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Installed:
    """One installed release."""

    name: str  # the first 16 digits of the digest
    digest: str
    run: str
    created: str  # when it was signed, UTC; empty where nobody signed
    coordinator: str  # public key that signed it; empty where nobody did
    installed: str  # when, UTC
    current: bool
    folder: Path

    @property
    def pipeline(self) -> Path:
        """The folder that `VGMedGenPipeline.from_pretrained` takes."""
        return self.folder / PIPELINE

    @property
    def release(self) -> Path:
        """The release as it was published."""
        return self.folder / RELEASE


def read(folder: Path, *, current: bool) -> Installed:
    """An installed release, by what it says of itself; its files are not looked at.

    Raises:
        ReleaseError: if it is not there, or does not say what its name says.
    """
    name = folder.name
    if not folder.is_dir():
        raise ReleaseError(
            f"release {shown(name)} is not in {folder.parent}; install it again"
        )
    told = told_of(folder)
    if told["digest"][:16] != name or not _DIGEST.fullmatch(told["digest"]):
        raise damaged(folder, TOLD)
    try:
        manifest = manifest_of(folder / RELEASE)
    except ReleaseError:
        manifest = {}
    if digest(manifest) != told["digest"] or not is_run(manifest.get("run")):
        raise damaged(folder, f"{RELEASE}/{MANIFEST}")
    signature = signature_of(folder / RELEASE)
    if signature is not None:
        try:
            check_own(signature, manifest)
        except TrustError:
            raise damaged(folder, f"{RELEASE}/{SIGNATURE}") from None
    return Installed(
        name=name,
        digest=told["digest"],
        run=manifest["run"],
        created=signature.created if signature else "",
        coordinator=signature.coordinator if signature else "",
        installed=told["installed"],
        current=current,
        folder=folder,
    )


def read_even_damaged(folder: Path, *, current: bool) -> Installed:
    """An installed release; of a damaged one its name, and when it says it was signed."""
    signature: Signature | None = None
    with suppress(ReleaseError, OSError):
        return read(folder, current=current)
    with suppress(ReleaseError, OSError):
        signature = signature_of(folder / RELEASE)
    return Installed(
        name=folder.name,
        digest=folder.name,
        run=DAMAGED,
        created=signature.created if signature else "",
        coordinator="",  # nobody's, whoever it names
        installed="",
        current=current,
        folder=folder,
    )


def check(one: Installed) -> None:
    """Compare every byte of an installed release with what it was.

    Raises:
        ReleaseError: naming a file that is missing, changed or new.
        TrustError: if its signature is wrong.
    """
    told = told_of(one.folder)
    for part in (PIPELINE, RELEASE):
        listed, found = dict(told[part]), files_of(one.folder / part)
        if part == RELEASE and found.get(SIGNATURE, LINK) != LINK:
            # stands for itself: it may come later or be made anew, but not go
            listed.pop(SIGNATURE, None)
            del found[SIGNATURE]
        for name in sorted(listed.keys() | found.keys()):
            if listed.get(name) != found.get(name):
                raise damaged(one.folder, f"{part}/{name}")
    manifest = verify_bytes(one.release)
    if digest(manifest) != one.digest:
        raise damaged(one.folder, f"{RELEASE}/{MANIFEST}")
    if (one.pipeline / "release.json").read_bytes() != manifest_json(manifest).encode():
        raise damaged(one.folder, f"{PIPELINE}/release.json")


def check_trusted(one: Installed, trusted: Sequence[str]) -> None:
    """Accept a release by a key that the site trusts now, whatever it trusted once.

    One that nobody signed is accepted only where nobody is trusted: at a virtual site.

    Raises:
        PolicyError: for any other.
    """
    if one.coordinator in trusted or not (one.coordinator or trusted):
        return
    why = "nobody has signed it"
    if one.coordinator:
        why = (
            f"policy.coordinators does not list the key that signed it, "
            f"{one.coordinator[:16]}"
        )
    raise PolicyError(
        f"release {one.name} is no longer trusted: {why}; use another one "
        "(vgmedgen-client models use), or list the key if you know whose it is"
    )


def describe(
    folder: Path,
    name: str,
    installed: str,
    before: str,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write `installed.json` of a folder that holds a release and its pipeline.

    Args:
        folder: the folder.
        name: digest of the release.
        installed: when, UTC.
        before: the release in use until then; empty where there was none.
        more: what else is told of it, plain JSON values.
    """
    parts = {part: files_of(folder / part) for part in (PIPELINE, RELEASE)}
    told = {"digest": name, "installed": installed, "before": before, **parts}
    told |= dict(more or {})
    write_told(folder, told)


def write_told(folder: Path, told: dict[str, Any]) -> None:
    """Write what `told_of` reads."""
    write_text(folder / TOLD, json.dumps(told, indent=2, sort_keys=True) + "\n")


def told_of(folder: Path) -> dict[str, Any]:
    """What `installed.json` tells.

    Raises:
        ReleaseError: if it is not there, or damaged.
    """
    try:
        told = json.loads((folder / TOLD).read_text(encoding="utf-8"))
        whole = all(isinstance(told[part], dict) for part in (PIPELINE, RELEASE))
        whole = whole and all(isinstance(told[n], str) for n in ("digest", "installed"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise damaged(folder, TOLD)
    found: dict[str, Any] = told
    return found


def damaged(folder: Path, name: str) -> ReleaseError:
    """What is said of an installed release of which a file is not what it was."""
    return ReleaseError(
        f"installed release {shown(folder.name)}: {shown(name)} has changed since it was "
        "installed; remove it and install it again"
    )
