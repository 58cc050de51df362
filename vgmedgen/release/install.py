"""Install a release at a site: rebuilt from its tensors, compared, whole or not at all.

What rebuilds and merges brings torch and the models. It is imported where it is needed,
so that nobody waits for it to hear that a release is refused.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from vgmedgen.base import Bundle
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import ReleaseError, TrustError
from vgmedgen.files import write_text
from vgmedgen.release import facts
from vgmedgen.release import signature as signing
from vgmedgen.release.archive import opened
from vgmedgen.release.fitness import KEY, Fitness, Judge, is_held_back
from vgmedgen.release.folders import clear, is_there, settle, sync
from vgmedgen.release.installed import PIPELINE, RELEASE, describe
from vgmedgen.release.signature import Signature
from vgmedgen.release.store import (
    CURRENT,
    NEXT,
    Store,
    current,
    unwritten,
)
from vgmedgen.release.verify import (
    check_form,
    digest,
    manifest_of,
    plan_of,
    signature_of,
    verify,
)

if TYPE_CHECKING:
    from vgmedgen.release.weights import Weights
    from vgmedgen.training.rounds import Workbench

__all__ = ["CURRENT", "current", "install", "install_from"]

log = logging.getLogger(__name__)


def install(
    releases: Path,
    bundle: Bundle,
    plan: RunPlan,
    weights: "Weights",
    told: Mapping[str, Any],
    signature: Signature | None = None,
    judge: Judge | None = None,
) -> str:
    """Rebuild the release that `told` describes from `weights`, then install it.

    It is put to use unless it is installed already, was signed before the one in use, or
    is worse here than what it would take the place of: a message that comes twice must
    not undo what somebody at the site has chosen, and a spoilt model must not be drawn
    with because it is signed.

    Args:
        releases: folder of the site's releases.
        bundle: the site's base.
        plan: of the run.
        weights: both groups of the exchange.
        told: the manifest.
        signature: None in a simulation. It has to be right; whose it is, the caller asks.
        judge: compares it with what is in use; None where nobody does.

    Returns:
        The digest of the release.

    Raises:
        ReleaseError: if a rebuilt file is not the one that the manifest lists, or a fact
            has not its form; the release in use stays.
        PolicyError: if the signature is of days to come.
        TrustError: if the signature is wrong.
        StateError: if the disk refuses; the release in use stays.
    """
    facts.check(told, plan)
    name = digest(told)
    if signature is not None:
        signing.check_own(signature, told)
        signing.check_time(signature)
    store = Store(releases)
    with store.alone():
        least = _least(store, name[:16])
        created = signature.created if signature else ""
        newer = least is not None and least <= created
        if _is_whole(store, name[:16]):
            if signature is not None:
                store.resign(name[:16], signature, [signature.coordinator])
            held = is_held_back(releases / name[:16])
            if newer and not held and not store.current_name():
                store.point(name[:16])
            return name
        if not newer:
            log.info(
                "release %s is not known to be newer than the one in use: that one stays",
                name[:16],
            )
        fit = judge(plan, weights) if judge is not None else None
        _build(store, bundle, plan, weights, told, signature, use=newer, fit=fit)
    return name


def install_from(
    releases: Path,
    bundle: Bundle,
    source: Path,
    trusted: Sequence[str],
    *,
    allow_downgrade: bool = False,
    judge: Judge | None = None,
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
        judge: as for `install`.

    Returns:
        The digest of the release, which is in use now unless it is worse here.

    Raises:
        ReleaseError: if it is damaged, for another base, or older than the one in use.
        PolicyError: if it is unsigned, or by a coordinator that is not trusted, or of
            days to come.
        TrustError: if its signature is wrong.
        StateError: if the disk refuses; the release in use stays.
    """
    if not is_there(source):
        raise ReleaseError(
            f"there is no release {source}; name a folder or a .vgrel file"
        )
    if source.is_dir():
        _signed(source, trusted)  # before anybody has to wait for it
    store = Store(releases)
    with (
        store.alone(),
        store.scratch() as scratch,
        opened(source, scratch) as folder,
    ):
        told, signed = _signed(folder, trusted)  # before its files are read
        if verify(folder, bundle) != told:
            raise ReleaseError(f"{source} has changed while it was read; start again")
        name = digest(told)
        if not allow_downgrade:
            _check_age(store, name[:16], signed)
        if _is_whole(store, name[:16]):
            store.resign(name[:16], signed, trusted)
            if not is_held_back(releases / name[:16]):
                store.turn_to(name[:16])
            return name
        plan = plan_of(folder)
        import torch  # noqa: PLC0415 - here and not before

        from vgmedgen.release.weights import weights_of  # noqa: PLC0415
        from vgmedgen.training.rounds import Workbench  # noqa: PLC0415

        bench = Workbench.open(bundle, plan, torch.device("cpu"))
        weights = weights_of(folder, bundle, plan, bench)
        fit = judge(plan, weights) if judge is not None else None
        _build(store, bundle, plan, weights, told, signed, bench=bench, fit=fit)
    return name


def _build(
    store: Store,
    bundle: Bundle,
    plan: RunPlan,
    weights: "Weights",
    told: Mapping[str, Any],
    signature: Signature | None,
    *,
    use: bool = True,
    bench: "Workbench | None" = None,
    fit: Fitness | None = None,
) -> None:
    """Rebuild, compare, merge with the base and put in place, all of it in a scratch."""
    from vgmedgen.release import pipeline  # noqa: PLC0415 - here and not before
    from vgmedgen.release.write import write  # noqa: PLC0415

    name = digest(told)[:16]
    if fit is not None and fit.worse_than:
        log.warning(
            "release %s is worse here than %s by more than policy.worse_by: it is "
            "installed and not used (vgmedgen-client models)",
            *(name, fit.worse_than),
        )
        use = False
    new = placed = False
    with store.scratch() as work:
        try:
            rebuilt = write(work / RELEASE, bundle, plan, weights, _given(told), bench)
            _compare(rebuilt, told)
            if signature is not None:
                write_text(work / RELEASE / signing.FILE, signature.to_json())
            pipeline.merge(work / PIPELINE, bundle, work / RELEASE)
            more = {KEY: fit.told()} if fit is not None else {}
            describe(work, digest(told), _now(), store.earlier(name), more)
            settle(work)
            # what is there already is damaged, or it would have been taken as it is
            new = not os.path.lexists(store.releases / name)
            if use:
                store.announce(name)
            store.place(work, name)
            placed = True
            sync(store.releases)
            if use:
                store.point(name)
        except BaseException as error:
            with suppress(OSError):
                clear(store.releases / NEXT)
                if new and placed and store.current_name() != name:
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


def _signed(folder: Path, trusted: Sequence[str]) -> tuple[dict[str, Any], Signature]:
    """Manifest and signature of a release that may be installed, if it is whole."""
    check_form(folder)
    told, signed = manifest_of(folder), signature_of(folder)
    signing.check(signed, told, trusted)
    if signed is None:  # `check` has refused it
        raise ReleaseError(f"{folder} has no {signing.FILE}")
    signing.check_time(signed)
    return told, signed


def _check_age(store: Store, name: str, signed: Signature) -> None:
    least = _least(store, name)
    if least is None:
        raise ReleaseError(
            f"the release in use is damaged and does not tell when it was signed: {name} "
            "may be older; allow a downgrade (--allow-downgrade) to install it all the same"
        )
    if signed.created < least:
        raise ReleaseError(
            f"the release was signed on {signed.created}, the one in use later, on "
            f"{least}; allow the downgrade (--allow-downgrade) if you want the older one"
        )


def _least(store: Store, name: str) -> str | None:
    """When release `name` must have been signed at least, to be put to use unasked.

    That of the one in use; if that one is lost, of the newest other that tells it. Empty
    where there is nothing to fall behind; None where that cannot be known.
    """
    used = store.current_name()
    if used == name:
        return ""
    with suppress(ReleaseError):
        return store.current().created
    others = [one for one in store.all() if one.name != name]
    known = [one.created for one in others if one.created]
    if known:
        return max(known)
    here = os.path.lexists(store.releases / name)
    lost = others or used or (store.has_pointer() and not here)
    return None if lost else ""


def _now() -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return now.replace("+00:00", "Z")
