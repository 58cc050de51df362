"""The releases that a site has installed, side by side, and which of them is in use.

```text
releases/
├── current                name of the one in use
├── next                   name of one that is about to be; gone when it is
└── <first 16 of digest>/  release/ as published, pipeline/ as used, installed.json
```

The one in use changes by one rename of one file. Whatever is half done has a name that
starts with a dot and is gone with the next installation.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgmedgen.errors import ReleaseError, StateError
from vgmedgen.files import sha256, write_text
from vgmedgen.process.lock import only_one
from vgmedgen.release.verify import MANIFEST, digest, signature_of, verify

CURRENT = "current"
NEXT = "next"
INSTALLED = "installed.json"
RELEASE = "release"
PIPELINE = "pipeline"
SCRATCH = ".new-"  # what a scratch folder's name starts with
LOCK = ".lock"
DAMAGED = "(damaged)"
PATIENCE = 600.0  # seconds that an installation waits for another to end
_NAME = re.compile("[0-9a-f]{16}")
_DIGEST_DIGITS = 64


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


def current(releases: Path) -> Path:
    """The pipeline folder of the release in use.

    Raises:
        ReleaseError: if nothing is installed.
    """
    return Store(releases).current().pipeline


class Store:
    """The folder `releases` of a site."""

    def __init__(self, releases: Path) -> None:
        self.releases = releases

    def all(self) -> list[Installed]:
        """Every installed release, the one installed last first.

        One that is too damaged to say what it is has the run `DAMAGED`.
        """
        if not self.releases.is_dir():
            return []
        names = [p.name for p in self.releases.iterdir() if _NAME.fullmatch(p.name)]
        found = [self._open_even_damaged(name) for name in names]
        return sorted(found, key=lambda one: (one.installed, one.name), reverse=True)

    def current(self) -> Installed:
        """The release in use.

        Raises:
            ReleaseError: if there is none.
        """
        name = self.current_name()
        if not name and (self.releases / CURRENT).exists():
            raise ReleaseError(
                f"{self.releases / CURRENT} is damaged: it names no release; use one that "
                "is installed, by its name"
            )
        if not name:
            raise ReleaseError(f"{self.releases} holds no installed release yet")
        return self._open(name)

    def current_name(self) -> str:
        """Name of the release in use; empty where none is, or the pointer is damaged."""
        return self._pointer(CURRENT)

    def before(self) -> Installed | None:
        """The release that `roll_back` would put to use; None where there is none.

        Raises:
            ReleaseError: if none is in use, or what is told of it is damaged.
        """
        name = str(_told(self.current().folder).get("before", ""))
        if not _NAME.fullmatch(name) or not (self.releases / name).is_dir():
            return None
        return self._open(name)

    def find(self, name: str) -> Installed:
        """The release whose name or digest starts with `name`.

        Raises:
            ReleaseError: if there is none, or more than one.
        """
        found = [one for one in self.all() if name and one.digest.startswith(name)]
        if len(found) != 1:
            what = f"{len(found)} releases start" if found else "no release starts"
            names = ", ".join(one.name for one in self.all()) or "none"
            raise ReleaseError(f"{what} with '{name[:64]}'; installed are: {names}")
        return found[0]

    def use(self, name: str) -> Installed:
        """Verify every byte of a release, then put it to use.

        Raises:
            ReleaseError: if it is not there or damaged; the one in use stays.
        """
        with self.alone():
            chosen = self.find(name)
            self._check(chosen)
            self.turn_to(chosen.name)
        return self._open(chosen.name)

    def roll_back(self) -> Installed:
        """Put the release to use that was in use before the one that is now.

        Raises:
            ReleaseError: if there was none, or it is damaged; the one in use stays.
        """
        with self.alone():
            chosen = self.before()
            if chosen is None:
                raise ReleaseError(
                    "no release that was in use before is installed; name one to use"
                )
            self._check(chosen)
            self.point(chosen.name)
        return self._open(chosen.name)

    def verify(self, name: str) -> Installed:
        """Check every byte of an installed release.

        Raises:
            ReleaseError: naming a file that is missing, changed or new.
            TrustError: if its signature is wrong.
        """
        chosen = self.find(name)
        self._check(chosen)
        return chosen

    def remove(self, name: str) -> None:
        """Delete an installed release that is not in use.

        Raises:
            ReleaseError: if it is in use, or not there.
        """
        with self.alone():
            chosen = self.find(name)
            if chosen.current:
                raise ReleaseError(
                    f"release {chosen.name} is in use; use another one first"
                )
            self.discard(chosen.name)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for oneself; ends what a killed installation began.

        Raises:
            StateError: if another installation does not end in time, or the disk refuses.
        """
        lock, end = self.releases / LOCK, time.monotonic() + PATIENCE
        with ExitStack() as held:
            while True:
                try:
                    self.releases.mkdir(parents=True, exist_ok=True, mode=0o700)
                    held.enter_context(only_one(lock, "an installation"))
                    break
                except OSError as error:
                    raise unwritten(self.releases, error) from None
                except StateError:
                    free = os.access(lock, os.R_OK | os.W_OK)
                    if not free or time.monotonic() > end:
                        raise
                    time.sleep(0.1)
            try:
                self._recover()
                yield
            except OSError as error:
                raise unwritten(self.releases, error) from None

    def turn_to(self, name: str) -> None:
        """Put another installed release to use and note which one was; within `alone`."""
        before = self.current_name()
        if name != before:
            told = _told(self.releases / name)
            _write(self.releases / name / INSTALLED, {**told, "before": before})
            self.point(name)

    def point(self, name: str) -> None:
        """Put an installed release to use; call it within `alone`."""
        write_text(self.releases / CURRENT, name)
        sync(self.releases)
        (self.releases / NEXT).unlink(missing_ok=True)

    def announce(self, name: str) -> None:
        """Say which release is about to appear and be used, should we not get there."""
        write_text(self.releases / NEXT, name)
        sync(self.releases)

    def discard(self, name: str) -> None:
        """Delete a folder: gone at once under its name; call it within `alone`."""
        away = self.releases / f"{SCRATCH}away-{name}"
        (self.releases / name).rename(away)
        sync(self.releases)
        shutil.rmtree(away)

    def _recover(self) -> None:
        for path in self.releases.glob(f"{SCRATCH}*"):
            shutil.rmtree(path)
        following = self._pointer(NEXT)
        if following and (self.releases / following).is_dir():
            self.point(following)
        (self.releases / NEXT).unlink(missing_ok=True)

    def _pointer(self, name: str) -> str:
        path = self.releases / name
        if not path.is_file():
            return ""
        told = path.read_bytes()[:17].decode(errors="replace")
        return told if _NAME.fullmatch(told) else ""

    def _open(self, name: str) -> Installed:
        folder = self.releases / name
        if not folder.is_dir():
            raise ReleaseError(
                f"release {name} is not in {self.releases}; install it again"
            )
        told = _told(folder)
        try:
            manifest = json.loads((folder / RELEASE / MANIFEST).read_text())
            run = str(manifest["run"])
        except (OSError, ValueError, KeyError, TypeError):
            raise _damaged(folder, f"{RELEASE}/{MANIFEST}") from None
        if told["digest"][:16] != name or len(told["digest"]) != _DIGEST_DIGITS:
            raise _damaged(folder, INSTALLED)
        signature = signature_of(folder / RELEASE)
        return Installed(
            name=name,
            digest=str(told["digest"]),
            run=run[:64],
            created=signature.created if signature else "",
            coordinator=signature.coordinator if signature else "",
            installed=str(told["installed"]),
            current=name == self.current_name(),
            folder=folder,
        )

    def _open_even_damaged(self, name: str) -> Installed:
        try:
            return self._open(name)
        except ReleaseError:
            return Installed(
                name=name,
                digest=name,
                run=DAMAGED,
                created="",
                coordinator="",
                installed="",
                current=name == self.current_name(),
                folder=self.releases / name,
            )

    def _check(self, one: Installed) -> None:
        told = _told(one.folder)
        for part in (PIPELINE, RELEASE):
            listed, found = told[part], files_of(one.folder / part)
            for name in sorted(listed.keys() | found.keys()):
                if listed.get(name) != found.get(name):
                    raise _damaged(one.folder, f"{part}/{name}")
        manifest = verify(one.release)
        if digest(manifest) != one.digest:
            raise _damaged(one.folder, f"{RELEASE}/{MANIFEST}")
        if json.loads((one.pipeline / "release.json").read_text()) != manifest:
            raise _damaged(one.folder, f"{PIPELINE}/release.json")


def files_of(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder`, sorted; a link is told as one."""
    return {
        path.relative_to(folder).as_posix(): "link"
        if path.is_symlink()
        else sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }


def describe(folder: Path, name: str, installed: str, before: str) -> None:
    """Write `installed.json` of a folder that holds a release and its pipeline.

    Args:
        folder: the folder.
        name: digest of the release.
        installed: when, UTC.
        before: the release in use until then; empty where there was none.
    """
    parts = {part: files_of(folder / part) for part in (PIPELINE, RELEASE)}
    told = {"digest": name, "installed": installed, "before": before, **parts}
    _write(folder / INSTALLED, told)


def sync(folder: Path) -> None:
    """Have the disk keep the names in `folder`."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def unwritten(releases: Path, error: Exception) -> StateError:
    """What an installation says that the disk has refused."""
    said: object = getattr(error, "strerror", None) or error
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        said = error.args[0][0][-1]  # of a tree: the first file that failed
    why = " ".join(str(said).split())[:200]
    return StateError(
        f"cannot install into {releases}: {why}; nothing was left behind and the release "
        "in use stays: free some space, then start again"
    )


def _write(path: Path, told: dict[str, Any]) -> None:
    write_text(path, json.dumps(told, indent=2, sort_keys=True) + "\n")


def _told(folder: Path) -> dict[str, Any]:
    """What `installed.json` tells."""
    try:
        told = json.loads((folder / INSTALLED).read_text())
        whole = all(isinstance(told[part], dict) for part in (PIPELINE, RELEASE))
        whole = whole and all(isinstance(told[n], str) for n in ("digest", "installed"))
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise _damaged(folder, INSTALLED)
    found: dict[str, Any] = told
    return found


def _damaged(folder: Path, name: str) -> ReleaseError:
    return ReleaseError(
        f"installed release {folder.name}: {name} has changed since it was installed; "
        "remove it and install it again"
    )
