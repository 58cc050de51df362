"""The releases that a site has installed, side by side, and which of them is in use.

```text
releases/
├── current                name of the one in use
├── next                   name of one that is about to be; gone when it is
└── <first 16 of digest>/  release/ as published, pipeline/ as used, installed.json
```

The one in use changes by one rename of one file, and a damaged one gives its name to a
whole one by one exchange of the two. Whatever is half done has a name that starts with a
dot and is gone with the next installation.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vgmedgen.errors import ReleaseError, StateError, TrustError
from vgmedgen.files import sha256, write_text
from vgmedgen.process.lock import only_one
from vgmedgen.release import installed
from vgmedgen.release.folders import clear, exchange, reason, sync
from vgmedgen.release.installed import DAMAGED, NAME, RELEASE, Installed
from vgmedgen.release.names import shown
from vgmedgen.release.signature import FILE as SIGNATURE
from vgmedgen.release.signature import Signature

__all__ = ["CURRENT", "DAMAGED", "Installed", "Store", "current"]

CURRENT = "current"
NEXT = "next"
SCRATCH = ".new-"  # what a scratch folder's name starts with
ASIDE = ".old-"  # before the name of one that makes room and may yet have to come back
LOCK = ".lock"
PATIENCE = 600.0  # seconds that an installation waits for another to end


def current(releases: Path) -> Path:
    """The pipeline folder of the release in use.

    Raises:
        ReleaseError: if nothing is installed.
    """
    return Store(releases).current().pipeline


class Store:
    """The folder `releases` of a site.

    Args:
        releases: the folder.
        trusted: keys that the site trusts now, as `policy.coordinators` lists them; what
            is verified and used is theirs. None asks only whether a release is whole.
    """

    def __init__(self, releases: Path, trusted: Sequence[str] | None = None) -> None:
        self.releases = releases
        self.trusted = trusted

    def all(self) -> list[Installed]:
        """Every installed release, the one installed last first.

        One that is too damaged to say what it is has the run `DAMAGED`.
        """
        if not self.releases.is_dir():
            return []
        used = self.current_name()
        found = [
            installed.read_even_damaged(path, current=path.name == used)
            for path in self.releases.iterdir()
            if NAME.fullmatch(path.name)
        ]
        return sorted(found, key=lambda one: (one.installed, one.name), reverse=True)

    def current(self) -> Installed:
        """The release in use.

        Raises:
            ReleaseError: if there is none.
        """
        name = self.current_name()
        if not name and self.has_pointer():
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

    def has_pointer(self) -> bool:
        """Whether something says, or should say, which release is in use."""
        return os.path.lexists(self.releases / CURRENT)

    def before(self) -> Installed | None:
        """The release that `roll_back` would put to use; None where there is none.

        Raises:
            ReleaseError: if none is in use, or what is told of it is damaged.
        """
        used = self.current()
        name = str(installed.told_of(used.folder).get("before", ""))
        if not NAME.fullmatch(name) or name == used.name:
            return None
        return self._open(name) if (self.releases / name).is_dir() else None

    def find(self, name: str) -> Installed:
        """The release whose name or digest starts with `name`.

        Raises:
            ReleaseError: if there is none, or more than one.
        """
        found = [one for one in self.all() if name and one.digest.startswith(name)]
        if len(found) != 1:
            what = f"{len(found)} releases start" if found else "no release starts"
            names = ", ".join(one.name for one in self.all()) or "none"
            raise ReleaseError(f"{what} with '{shown(name)}'; installed are: {names}")
        return found[0]

    def use(self, name: str) -> Installed:
        """Verify every byte of a release, then put it to use.

        Raises:
            PolicyError: if it is signed by nobody whom the site trusts.
            ReleaseError: if it is not there or damaged; the one in use stays.
        """
        with self.alone():
            chosen = self.verify(name)
            self.turn_to(chosen.name)
        return self._open(chosen.name)

    def roll_back(self) -> Installed:
        """Put the release to use that was in use before the one that is now.

        Raises:
            PolicyError: if it is signed by nobody whom the site trusts.
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

    def look(self, name: str) -> Installed:
        """A release that is still here and by a key that is trusted now; not its bytes.

        Args:
            name: whole, as `Installed.name` tells it.

        Raises:
            PolicyError: if it is signed by nobody whom the site trusts.
            ReleaseError: if it is not there, or does not say what its name says.
        """
        chosen = self._open(name)
        if self.trusted is not None:
            installed.check_trusted(chosen, self.trusted)
        return chosen

    def verify(self, name: str) -> Installed:
        """Check every byte of an installed release, and that its key is trusted.

        Raises:
            PolicyError: if it is signed by nobody whom the site trusts.
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
        if lock.is_symlink() or (lock.exists() and not lock.is_file()):
            raise StateError(f"{lock} is no lock file; remove it, then start again")
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

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that has another name afterwards; what has its name by then is gone."""
        work = Path(tempfile.mkdtemp(dir=self.releases, prefix=SCRATCH))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            with suppress(OSError):
                work.unlink()  # what a damaged release was, if it was no folder

    def turn_to(self, name: str) -> None:
        """Put another installed release to use and note which one was; within `alone`."""
        if name != self.current_name():
            told = installed.told_of(self.releases / name)
            told["before"] = self.earlier(name)
            installed.write_told(self.releases / name, told)
            self.point(name)

    def earlier(self, name: str) -> str:
        """What `roll_back` is to return to once `name` is in use; may be nothing."""
        used = self.current_name()
        if used != name:
            return used
        try:
            return str(installed.told_of(self.releases / name).get("before", ""))
        except ReleaseError:
            return ""

    def point(self, name: str) -> None:
        """Put an installed release to use; call it within `alone`."""
        pointer = self.releases / CURRENT
        if pointer.is_dir():
            clear(pointer)  # a file cannot take the place of a folder
        write_text(pointer, name)
        sync(self.releases)
        clear(self.releases / NEXT)

    def announce(self, name: str) -> None:
        """Say which release is about to appear and be used, should we not get there."""
        write_text(self.releases / NEXT, name)
        sync(self.releases)

    def place(self, work: Path, name: str) -> None:
        """Give a folder the name of a release; call it within `alone`.

        Where something has that name already, `work` names it afterwards, or it is gone.
        """
        target = self.releases / name
        if not os.path.lexists(target):
            work.rename(target)
        elif not exchange(work, target):
            try:
                target.rename(self.releases / f"{ASIDE}{name}")
                sync(self.releases)
                work.rename(target)
                sync(self.releases)
            finally:
                self._settle_aside()

    def discard(self, name: str) -> None:
        """Delete a folder: gone at once under its name; call it within `alone`."""
        away = self.releases / f"{SCRATCH}away-{name}"
        (self.releases / name).rename(away)
        sync(self.releases)
        clear(away)

    def resign(self, name: str, signature: Signature, trusted: Sequence[str]) -> None:
        """Keep the signature that came with a release that is installed already.

        Not if the one it has is by a key in `trusted` and no older. Within `alone`.

        Raises:
            ReleaseError: if what is told of the release is damaged.
        """
        one = self._open(name)
        if one.coordinator in trusted and one.created >= signature.created:
            return
        told, place = installed.told_of(one.folder), one.release / SIGNATURE
        with self.scratch() as work:
            write_text(work / SIGNATURE, signature.to_json())
            (work / SIGNATURE).replace(place)
        sync(one.release)
        told[RELEASE][SIGNATURE] = sha256(place)
        installed.write_told(one.folder, told)

    def _recover(self) -> None:
        parts = [self.releases / f".{name}.part" for name in (CURRENT, NEXT)]
        for path in [*self.releases.glob(f"{SCRATCH}*"), *parts]:
            clear(path)
        self._settle_aside()
        following = self._pointer(NEXT)
        # it may be the damaged one that was about to be replaced
        if following and self._is_whole(following):
            self.point(following)
        clear(self.releases / NEXT)

    def _settle_aside(self) -> None:
        """Bring back what made room for a release that did not come; else clear it."""
        for path in self.releases.glob(f"{ASIDE}*"):
            name = path.name.removeprefix(ASIDE)
            target = self.releases / name
            if NAME.fullmatch(name) and not os.path.lexists(target):
                path.rename(target)
                sync(self.releases)
            else:
                clear(path)

    def _is_whole(self, name: str) -> bool:
        try:
            installed.check(self._open(name))
        except (ReleaseError, TrustError, OSError):
            return False
        return True

    def _pointer(self, name: str) -> str:
        path = self.releases / name
        if not path.is_file():
            return ""
        with path.open("rb") as stream:
            told = stream.read(17).decode(errors="replace")
        return told if NAME.fullmatch(told) else ""

    def _open(self, name: str) -> Installed:
        return installed.read(self.releases / name, current=name == self.current_name())

    def _check(self, one: Installed) -> None:
        try:
            if self.trusted is not None:
                # of a damaged one nobody's key is known: `look` tells what is damaged
                self.look(one.name)
            installed.check(one)
        except OSError as error:
            raise ReleaseError(
                f"installed release {one.name} cannot be read: {reason(error)}; mend its "
                "permissions, or remove it and install it again"
            ) from None


def unwritten(releases: Path, error: Exception) -> StateError:
    """What an installation says that the disk has refused."""
    return StateError(
        f"cannot install into {releases}: {reason(error)}; nothing was left behind and the "
        "release in use stays: free some space, then start again"
    )
