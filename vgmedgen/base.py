"""The base bundle: the frozen weights that every participant holds before a run.

One folder in diffusers layout (transformer, vae, scheduler, text_encoder, tokenizer,
hffm, text_mapper, visual_prior) with `manifest.json`: sha256 of every file, seed, source,
licence. The digest of that manifest names the bundle in every message and release.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgmedgen.config.ranges import digest_of
from vgmedgen.errors import BaseError
from vgmedgen.files import tree_digests, write_text

MANIFEST = "manifest.json"
PARTS = (
    "transformer",
    "vae",
    "scheduler",
    "text_encoder",
    "tokenizer",
    "hffm",
    "text_mapper",
    "visual_prior",
)


@dataclass(frozen=True)
class Bundle:
    """A verified base bundle on disk."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Hash that identifies the bundle: two equal digests mean equal weights."""
        return digest_of(self.manifest)

    @property
    def image_px(self) -> int:
        """Side in pixels of the images that the bundle works with."""
        return int(self.manifest["image_px"])

    def part(self, name: str) -> Path:
        """Folder of one of `PARTS`."""
        return self.folder / name


def seal(folder: Path, facts: Mapping[str, Any]) -> Bundle:
    """Write the manifest of a finished bundle folder and return the bundle.

    Args:
        folder: holds every part.
        facts: what the manifest tells besides the files: seed, source, licence, sizes.
    """
    for path in folder.rglob("*"):  # some writers leave files for their owner alone
        path.chmod(0o755 if path.is_dir() else 0o644)
    files = tree_digests(folder, leave_out=frozenset({MANIFEST}))
    manifest = {**facts, "files": files}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True))
    return open_bundle(folder)


def open_bundle(folder: Path, *, expect: str = "") -> Bundle:
    """Open a bundle after checking every byte of it.

    Args:
        folder: the bundle.
        expect: digest it must have; empty accepts any.

    Raises:
        BaseError: if a file is missing, changed or not in the manifest (it is named), or
            the digest is another one than expected.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BaseError(
            f"{folder} is no base bundle: it has no {MANIFEST}; build one with "
            "`vgmedgen base build`"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        listed = dict(manifest["files"])
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise BaseError(
            f"{path} is damaged; copy the bundle again or build it anew"
        ) from None
    try:
        found = tree_digests(folder, leave_out=frozenset({MANIFEST}))
    except OSError as error:
        raise BaseError(
            f"base bundle {folder} cannot be read: {error.filename} "
            f"({error.strerror}); let this user read it: chmod -R a+rX {folder}"
        ) from None
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            what = (
                "is missing"
                if name not in found
                else "is not in the manifest"
                if name not in listed
                else "has changed"
            )
            raise BaseError(
                f"base bundle {folder}: {name} {what} since it was sealed; copy the "
                "bundle again or build it anew"
            )
    bundle = Bundle(folder, manifest)
    if expect and bundle.digest != expect:
        raise BaseError(
            f"base bundle {folder} has digest {bundle.digest[:12]}, the run needs "
            f"{expect[:12]}; install the bundle that the coordinator names"
        )
    return bundle
