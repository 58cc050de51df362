"""What a job refuses before it draws, and what it says when it cannot write."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vgmedgen.errors import ConfigError, PolicyError, StateError
from vgmedgen.site.folder import Site
from vgmedgen.synthesis import layouts, prompts
from vgmedgen.synthesis.asked import Ask

KEPT = ("approvals", "cache", "dry-run", "node", "old", "releases", "runs", "turns")
"""Folders that a site keeps beside its site.yaml."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def check(
    site: Site, asks: Sequence[Ask], out: Path, layout: str, *, gate: bool
) -> None:
    """Refuse a job that cannot be.

    Raises:
        ConfigError: if an ask, the layout or the folder does not go with the rest.
        PolicyError: if the gate is off and the site does not allow that.
    """
    if not gate and not site.policy.ungated:
        raise PolicyError(
            f"{site.name} keeps no image that the release gate has not compared; leave "
            "the gate on, or have the hospital set policy.ungated: true in site.yaml"
        )
    prompts.check(asks)
    layouts.check(layout, asks)
    wanted = layouts.MODALITIES.get(layout, "")
    here = {dataset.modality for dataset in site.datasets}
    if wanted and "" not in here and wanted not in here:
        raise ConfigError(
            f"the layout {layout} is for {wanted}, and {site.name} holds "
            f"{', '.join(sorted(here))}; choose --layout plain, or the one of its images"
        )
    check_place(site, out)


def check_place(site: Site, out: Path) -> None:
    """Refuse a folder among the site's data, or among what the site itself keeps.

    Images that were drawn must not be read as patients' the next time.

    Raises:
        ConfigError: naming the folder that it lies in.
    """
    home, place = site.folder.resolve(), out.resolve()
    held = [home / name for name in KEPT]
    held += [home / source.root for source in site.config.sources]
    held += [home / site.config.base] if site.config.base else []
    for folder in held:
        taken = folder.resolve()
        if not taken.is_file() and place.is_relative_to(taken) and taken != home:
            raise ConfigError(
                f"{out} lies in {folder}, where {site.name} keeps other things; choose a "
                f"folder of its own, such as {site.folder / 'drawn'}"
            )


@contextmanager
def kept(out: Path) -> Iterator[None]:
    """Say, where something cannot be written, that what is done stays."""
    try:
        yield
    except (OSError, StateError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        remedy = "free some space" if cause.errno in _FULL else "mend that"
        raise StateError(
            f"cannot write below {out}: {cause.strerror or cause}; every finished image "
            f"is kept: {remedy}, then go on with --resume"
        ) from error
