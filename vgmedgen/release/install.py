"""Install a release at a site: rebuilt from its tensors, compared, whole or not at all."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vgmedgen.base import Bundle
from vgmedgen.errors import ReleaseError, TrustError
from vgmedgen.files import write_text
from vgmedgen.plan import Plan
from vgmedgen.release import facts, pipeline
from vgmedgen.release import signature as signing
from vgmedgen.release.archive import unpack
from vgmedgen.release.signature import Signature
from vgmedgen.release.store import (
    CURRENT,
    NEXT,
    PIPELINE,
    RELEASE,
    SCRATCH,
    Store,
    current,
    describe,
    sync,
    unwritten,
)
from vgmedgen.release.verify import digest, plan_of, signature_of, verify
from vgmedgen.release.weights import Weights, weights_of
from vgmedgen.release.write import write
from vgmedgen.training.rounds import Workbench

__all__ = ["CURRENT", "current", "install", "install_from"]

log = logging.getLogger(__name__)


def install(
    releases: Path,
    bundle: Bundle,
    plan: Plan,
    weights: Weights,
    told: Mapping[str, Any],
    signature: Signature | None = None,
) -> str:
    """Rebuild the release that `told` describes from `weights`, then install it.

    It is put to use unless it is installed already, or was signed before the one in use:
    a message that comes twice must not undo what somebody at the site has chosen.

    Args:
        releases: folder of the site's releases.
        bundle: the site's base.
        plan: of the run.
        weights: both groups of the exchange.
        told: the manifest.
        signature: None in a simulation. It has to be right; whose it is, the caller asks.

    Returns:
        The digest of the release.

    Raises:
        ReleaseError: if a rebuilt file is not the one that the manifest lists, or a fact
            has not its form; the release in use stays.
        TrustError: if the signature is wrong.
        StateError: if the disk refuses; the release in use stays.
    """
    facts.check(told, plan)
    name = digest(told)
    if signature is not None:
        signing.check_own(signature, told)
    store = Store(releases)
    with store.alone():
        if _is_whole(store, name[:16]):
            if not store.current_name():
                store.point(name[:16])
            return name
        newer = _created(store) <= (signature.created if signature else "")
        if not newer:
            log.info("release %s is older than the one in use, which stays", name[:16])
        _build(store, bundle, plan, weights, told, signature, use=newer)
    return name


def install_from(
    releases: Path,
    bundle: Bundle,
    source: Path,
    trusted: Sequence[str],
    *,
    allow_downgrade: bool = False,
) -> str:
    """Install a published release that was carried here: a folder, or a `.vgrel` file.

    Its tensors are read as the exchange schema's, and the release is rebuilt from them
    and compared: no config file of it is ever used.

    Args:
        releases: folder of the site's releases.
        bundle: the site's base.
        source: the release.
        trusted: keys whose releases may be installed, as `policy.coordinators` has them.
        allow_downgrade: install it even if the one in use was signed later.

    Returns:
        The digest of the release, which is in use now.

    Raises:
        ReleaseError: if it is damaged, for another base, or older than the one in use.
        PolicyError: if it is unsigned, or by a coordinator that is not trusted.
        TrustError: if its signature is wrong.
        StateError: if the disk refuses; the release in use stays.
    """
    if not source.exists():
        raise ReleaseError(
            f"there is no release {source}; name a folder or a .vgrel file"
        )
    store = Store(releases)
    with store.alone(), _scratch(releases) as scratch:
        folder = source
        if not source.is_dir():
            folder = scratch / RELEASE
            unpack(source, folder)
        told = verify(folder, bundle)
        signed = signature_of(folder)
        signing.check(signed, told, trusted)
        _check_age(store, signed, allow_downgrade=allow_downgrade)
        name = digest(told)
        if _is_whole(store, name[:16]):
            store.turn_to(name[:16])
            return name
        plan = plan_of(folder)
        bench = Workbench.open(bundle, plan, torch.device("cpu"))
        weights = weights_of(folder, bundle, plan, bench)
        _build(store, bundle, plan, weights, told, signed, bench=bench)
    return name


def _build(
    store: Store,
    bundle: Bundle,
    plan: Plan,
    weights: Weights,
    told: Mapping[str, Any],
    signature: Signature | None,
    *,
    use: bool = True,
    bench: Workbench | None = None,
) -> None:
    """Rebuild, compare, merge with the base and put in place, all of it in a scratch."""
    name = digest(told)[:16]
    target = store.releases / name
    placed = False
    with _scratch(store.releases) as work:
        try:
            rebuilt = write(work / RELEASE, bundle, plan, weights, _given(told), bench)
            _compare(rebuilt, told)
            if signature is not None:
                write_text(work / RELEASE / signing.FILE, signature.to_json())
            pipeline.merge(work / PIPELINE, bundle, work / RELEASE)
            describe(work, digest(told), _now(), store.current_name())
            _settle(work)
            if target.exists():  # damaged, or it would have been taken as it is
                store.discard(name)
            if use:
                store.announce(name)
            work.rename(target)
            placed = True
            sync(store.releases)
            if use:
                store.point(name)
        except BaseException as error:
            with suppress(OSError):
                (store.releases / NEXT).unlink(missing_ok=True)
                if placed and store.current_name() != name:
                    store.discard(name)
            if isinstance(error, SafetensorError):  # how it tells of a full disk
                raise unwritten(store.releases, error) from None
            raise


def _given(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in told.items() if name in facts.GIVEN}


def _compare(rebuilt: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    names = rebuilt.keys() | told.keys()
    if wrong := sorted(n for n in names if rebuilt.get(n) != told.get(n)):
        raise ReleaseError(
            "the release that arrived is not the one its manifest describes "
            f"({', '.join(wrong)} differ); the installed release stays in use"
        )


def _is_whole(store: Store, name: str) -> bool:
    """Whether a release is installed already, and undamaged."""
    if not (store.releases / name).is_dir():
        return False
    try:
        store.verify(name)
    except (ReleaseError, TrustError) as error:
        log.warning("%s; it is installed anew", error)
        return False
    return True


def _check_age(
    store: Store, signed: Signature | None, *, allow_downgrade: bool
) -> None:
    ours, theirs = _created(store), signed.created if signed else ""
    if theirs < ours and not allow_downgrade:
        raise ReleaseError(
            f"the release was signed on {theirs}, the one in use later, on {ours}; "
            "allow the downgrade (--allow-downgrade) if you want the older one"
        )


def _created(store: Store) -> str:
    """When the release in use was signed; empty where nobody signed it, or none is."""
    try:
        return store.current().created
    except ReleaseError:
        return ""


def _now() -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return now.replace("+00:00", "Z")


@contextmanager
def _scratch(releases: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, or has another name by then."""
    work = Path(tempfile.mkdtemp(dir=releases, prefix=SCRATCH))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _settle(folder: Path) -> None:
    """Have the disk keep every file and name below `folder` before it is renamed."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync(path)
        else:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    sync(folder)
