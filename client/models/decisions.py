"""The releases that a site holds: install one by hand, choose, check, remove.

Whatever changes the model in use is a person's decision. It is in the audit log before
it is carried out, and what came of it after.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from client.runfiles import AUDIT
from vgmedgen.base import Bundle, open_bundle
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import BaseError, PolicyError, VGMedGenError
from vgmedgen.site.config import FILE, SiteConfig, load_config
from vgmedgen.trust.facts import FACTS
from vgmedgen.trust.journal import Journal

if TYPE_CHECKING:
    from vgmedgen.release.fitness import Fitness, Judge
    from vgmedgen.release.store import Installed, Store
    from vgmedgen.release.weights import Weights

RELEASES = "releases"  # in the site's folder


def store_of(folder: Path) -> "Store":
    """The releases of the site in `folder`."""
    from vgmedgen.release.store import Store  # noqa: PLC0415 - as far as needed

    return Store(folder / RELEASES)


def trusting(folder: Path) -> "Store":
    """The same; what is verified and used must be by a key that the policy lists now.

    Raises:
        ConfigError: if the site's site.yaml is no valid one.
    """
    from vgmedgen.release.store import Store  # noqa: PLC0415 - as far as needed

    return Store(folder / RELEASES, load_config(folder / FILE).policy.coordinators)


def install(
    folder: Path, source: Path, by: str, *, allow_downgrade: bool = False
) -> "Installed":
    """Install a release that was carried here, and use it unless it is worse here.

    Args:
        folder: of the site.
        source: a release folder, or one file of it.
        by: who decides.
        allow_downgrade: also one that is older than the one in use.

    Returns:
        The release, as it is installed.

    Raises:
        ConfigError: if the site's site.yaml is no valid one.
        PolicyError: if it is not signed by a coordinator whom the site's policy lists.
        VGMedGenError: for a release that is changed, for another base, or older; the one
            in use stays so.
    """
    config = load_config(folder / FILE)
    store = store_of(folder)
    with _recorded(folder, "install", by) as facts:
        from vgmedgen.release.install import install_from  # noqa: PLC0415 - as above

        trusted = config.policy.coordinators
        if not trusted:
            raise PolicyError(
                f"{folder / FILE} trusts nobody's releases: policy.coordinators is empty; "
                "put the 64 digits of coordinator.pub there, once you know whose they are"
            )
        digest = install_from(
            folder / RELEASES,
            _bundle(folder, config),
            source,
            trusted,
            allow_downgrade=allow_downgrade,
            judge=_fitness_at(folder),
        )
        installed = store.find(digest)
        facts.update(_facts(installed))
    return installed


def _bundle(folder: Path, config: SiteConfig) -> Bundle:
    if not config.base:
        raise BaseError("site.yaml names no base bundle; set base: /path/to/bundle")
    return open_bundle((folder / config.base).resolve(), expect=config.base_digest)


def _fitness_at(folder: Path) -> "Judge":
    """Compares a release with what is in use; torch is loaded when it is asked."""

    def judge(plan: RunPlan, weights: "Weights") -> "Fitness | None":
        from vgmedgen.site.folder import Site  # noqa: PLC0415 - brings torch and the models

        return Site(folder).fitness(plan, weights)

    return judge


def use(folder: Path, name: str, by: str, *, overrule: bool = False) -> "Installed":
    """Use a release that is installed, after every byte of it was checked.

    Args:
        folder: of the site.
        name: of the release, or how it begins.
        by: who decides.
        overrule: use it although its held-out loss here was worse than before.

    Raises:
        PolicyError: if it is signed by a coordinator whom the policy does not list, or is
            worse here and nobody overrules that.
        ReleaseError: if there is none of that name, or it is damaged.
    """
    store = store_of(folder)
    chosen = store.find(name)
    from vgmedgen.release.fitness import is_held_back, why_not  # noqa: PLC0415

    with _recorded(folder, "use", by) as facts:
        facts.update(_facts(chosen))
        if is_held_back(chosen.folder):
            facts["why"] = "overruled" if overrule else "worse"
            if not overrule:
                raise PolicyError(
                    f"release {chosen.name} was not put to use: "
                    f"{why_not(chosen.folder)}; `vgmedgen-client models use "
                    f"{chosen.name} --overrule` uses it all the same"
                )
        return trusting(folder).use(chosen.digest)


def roll_back(folder: Path, by: str) -> "Installed":
    """Use the release again that was in use before this one.

    Raises:
        PolicyError: if it is signed by a coordinator whom the policy does not list.
        ReleaseError: if there is none, or it is damaged.
    """
    with _recorded(folder, "roll-back", by) as facts:
        store = trusting(folder)
        before = store.before()
        if before is not None:
            facts.update(_facts(before))
        return store.roll_back()


def remove(folder: Path, name: str, by: str) -> "Installed":
    """Remove a release that is not in use.

    Raises:
        ReleaseError: if there is none of that name, or it is in use.
        StateError: if it cannot be removed.
    """
    store = store_of(folder)
    chosen = store.find(name)
    with _recorded(folder, "remove", by) as facts:
        facts.update(_facts(chosen))
        store.remove(chosen.digest)
    return chosen


def rows(folder: Path) -> list[dict[str, str | bool]]:
    """Every release of a site, the newest installation first; nothing is checked."""
    from vgmedgen.release.fitness import is_held_back  # noqa: PLC0415 - as far as needed

    return [
        {
            "name": one.name,
            "run": one.run,
            "created": one.created,
            "signed_by": one.coordinator,
            "installed": one.installed,
            "current": one.current,
            "held_back": is_held_back(one.folder),
            "digest": one.digest,
        }
        for one in store_of(folder).all()
    ]


@contextmanager
def _recorded(folder: Path, event: str, by: str) -> Iterator[dict[str, str]]:
    """Keep a decision in the audit log before it is carried out, and what came of it.

    Yields:
        Facts of the release, for whoever carries it out to fill in.
    """
    journal, facts = Journal(folder / AUDIT), dict[str, str]()
    # first the log: a decision that it does not hold is none
    journal.add(event, decision="approved", approved_by=by)
    try:
        yield facts
    except (Exception, KeyboardInterrupt) as error:
        ours = isinstance(error, VGMedGenError)
        code = error.code if isinstance(error, VGMedGenError) else VGMedGenError.code
        decision = "refused" if ours else "failed"
        journal.add(event, decision=decision, code=code, approved_by=by, **facts)
        raise
    journal.add(event, decision="accepted", approved_by=by, **facts)


def _facts(release: "Installed") -> dict[str, str]:
    """What an audit log may tell of a release; words of another form are left out."""
    told = {
        "digest": release.digest,
        "run": release.run,
        "coordinator": release.coordinator,
    }
    return {name: w for name, w in told.items() if re.fullmatch(FACTS[name], w)}
