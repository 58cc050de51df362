"""Check a release folder against its manifest, byte by byte."""

import json
from pathlib import Path
from typing import Any

from vgmedgen.base import Bundle
from vgmedgen.errors import ReleaseError
from vgmedgen.files import tree_digests
from vgmedgen.ranges import digest_of

MANIFEST = "manifest.json"


def digest(manifest: dict[str, Any]) -> str:
    """Hash that names a release: two equal digests mean equal weights and facts."""
    return digest_of(manifest)


def verify(folder: Path, bundle: Bundle | None = None) -> dict[str, Any]:
    """Read the manifest after checking every file it lists.

    Args:
        folder: the release.
        bundle: the base it must have been made for; None leaves that open.

    Raises:
        ReleaseError: if a file is missing, changed or unlisted, or the base is another.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ReleaseError(f"{folder} is no release: it has no {MANIFEST}")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        listed = dict(manifest["files"])
        base = str(manifest["base"])
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise ReleaseError(f"{path} is damaged; fetch the release again") from None
    found = tree_digests(folder, leave_out=frozenset({MANIFEST}))
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            raise ReleaseError(
                f"release {folder}: {name} is not what the manifest lists; fetch the "
                "release again"
            )
    if bundle is not None and base != bundle.digest:
        raise ReleaseError(
            f"release {folder} was made for base {base[:12]}, this site holds "
            f"{bundle.digest[:12]}; install that base first"
        )
    return manifest
