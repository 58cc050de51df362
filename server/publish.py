"""Hand the release of a finished run on: a folder, and one file for hospitals."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from server import runs
from server.app import RELEASE
from server.kits import Kits
from server.launch import Launch
from vgmedgen.errors import ReleaseError, StateError, TrustError
from vgmedgen.files import is_system, tree_digests
from vgmedgen.process.lock import only_one
from vgmedgen.release.archive import SUFFIX, pack
from vgmedgen.release.folders import clear, reason
from vgmedgen.release.names import shown
from vgmedgen.release.signature import FILE, Signature, check
from vgmedgen.release.verify import MANIFEST, verify

LOCK = "publish.lock"  # in the run's folder
SCRATCH = ".new-"
_RANDOM = 8  # letters that the system adds to a scratch folder's name


@dataclass(frozen=True, kw_only=True)
class Published:
    """A release as it was handed on."""

    digest: str
    created: str  # when it was signed, ISO 8601, UTC
    coordinator: str  # public key that signed it, hex
    folder: Path
    file: Path
    told_before: bool  # the very same was there already


def publish(kits: Kits, run: str, out: Path) -> Published:
    """Write `out/<run>/` and `out/<run>.vgrel` from a finished run; no server is needed.

    Nothing is ever overwritten: of a publication that was cut off, what is missing is
    made, and the same run always gives the same bytes.

    Args:
        kits: of this coordinator.
        run: its id.
        out: folder that holds releases and nothing else, or is made.

    Raises:
        ReleaseError: if the run's release is not, to the byte, what was signed.
        StateError: if there is no such run, it is not finished, or `out` holds something
            else or cannot be written.
        TrustError: if the run was signed by another key than this coordinator's.
    """
    release, signature = _finished(kits, run)
    folder, file = out / run, out / f"{run}{SUFFIX}"
    lock = runs.folder_of(kits.state, run) / LOCK
    with only_one(lock, "a publication of this run"), _out(out):
        _sweep(out, run)
        with tempfile.TemporaryDirectory(dir=out, prefix=f"{SCRATCH}{run}-") as scratch:
            work = Path(scratch)
            shutil.copytree(release, work / run)
            _check(work / run, signature)  # the copy: that is what hospitals get
            pack(work / run, work / file.name)
            there = [_put(work / run, folder), _put(work / file.name, file)]
        _check(folder, signature)  # and no other took its place meanwhile
    return Published(
        digest=signature.release,
        created=signature.created,
        coordinator=signature.coordinator,
        folder=folder,
        file=file,
        told_before=all(there),
    )


@contextmanager
def _out(out: Path) -> Iterator[None]:
    """Write into `out`; it is gone again where nothing came of it.

    Raises:
        StateError: if `out` holds something else, or the disk refuses.
    """
    _check_out(out)
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise StateError(
            f"cannot write the release to {out}: {reason(error)}; free some space or "
            "choose another --out, then publish again"
        ) from None
    finally:
        if made:
            with suppress(OSError):
                out.rmdir()  # only where it is still empty


def _sweep(out: Path, run: str) -> None:
    """Delete what a publication of this run left that was killed."""
    for path in out.iterdir():
        name = path.name
        if name == f"{SCRATCH}{run}" or name[:-_RANDOM] == f"{SCRATCH}{run}-":
            clear(path)


def _finished(kits: Kits, run: str) -> tuple[Path, Signature]:
    """The release folder of a finished run, every byte checked, and its signature."""
    known = runs.runs_of(kits.state)
    if run not in known:
        raise StateError(
            f"there is no run '{shown(run)}' in {kits.state}; there are: "
            f"{', '.join(known) or 'none'}"
        )
    place = runs.folder_of(kits.state, run)
    state = runs.read(place).state
    if state != runs.FINISHED:
        raise StateError(
            f"run {run} is {state}, and only a finished run has a release to publish; "
            "look with `vgmedgen-server status`"
        )
    launch, key = Launch.load(runs.launch_file(place)), kits.signing_key()
    if launch.coordinator != key.public:
        raise TrustError(
            f"run {run} was signed by {launch.coordinator[:16] or 'nobody'}, this "
            f"coordinator's key is {key.public[:16]}; put the key of that run back, or "
            "play the run again under another name"
        )
    release = place / RELEASE
    try:
        signature = Signature.from_json((release / FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise ReleaseError(
            f"{release} has no {FILE}: it was made by an earlier version, or is damaged; "
            "restore it from a copy, or play the run again under another name"
        ) from None
    if signature.coordinator != key.public:
        raise TrustError(
            f"{release / FILE} is by {signature.coordinator[:16]}, not by this "
            "coordinator's key; restore it from a copy"
        )
    manifest = _check(release, signature)
    if (manifest.get("run"), manifest.get("base")) != (run, launch.base_digest):
        raise ReleaseError(
            f"{release} is the release of run {shown(manifest.get('run'))}, not of "
            f"{run}; restore it from a copy"
        )
    return release, signature


def _check(folder: Path, signature: Signature) -> dict[str, object]:
    manifest = verify(folder)
    check(signature, manifest, [signature.coordinator])
    return manifest


def _check_out(out: Path) -> None:
    """Refuse a folder with anything but releases in it."""
    if not out.exists():
        return
    if not out.is_dir():
        raise StateError(f"{out} is a file; choose a folder with --out")
    for path in sorted(out.iterdir()):
        if is_system(path):
            continue
        scratch = path.name.startswith(SCRATCH) and path.is_dir()  # of one killed
        scratch = scratch and not path.is_symlink()
        folder = path.is_dir() and (path / MANIFEST).is_file()
        if not (scratch or folder or path.suffix == SUFFIX):
            raise StateError(
                f"{out} is not empty: it holds {shown(path.name)}, which is no release; "
                "choose another --out"
            )


def _put(made: Path, target: Path) -> bool:
    """Move what was made to where it belongs; whether the very same was there."""
    if target.exists() or target.is_symlink():
        if _bytes(made) == _bytes(target):
            return True
        raise StateError(
            f"{target} is there already and is another; nothing is overwritten: move it "
            "away, or choose another --out"
        )
    made.rename(target)
    return False


def _bytes(path: Path) -> object:
    if path.is_dir():
        return tree_digests(path, leave_out=frozenset())
    return path.read_bytes()
