"""Remove a hospital: its key is shut out, and runs under way go on without it.

Nothing of the hospital's is deleted: its kit's folder may be the one that it lives in,
and what its rounds gave to the model stays. It stands on a list from then on, so that no
command lets it in again in passing.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from server import place, runs
from server.kits import Kits
from server.launch import Launch
from vgmedgen.errors import StateError
from vgmedgen.files import write_text


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What became of a site."""

    site: str
    had_key: bool
    kit: Path | None  # its folder, which is left as it is
    going: dict[str, int]  # runs that it was part of -> sites that are left to each
    short: tuple[str, ...]  # those of them that are left with too few for a round


def remove(kits: Kits, site: str) -> Removed:
    """Shut a site out, for good or until it is registered again on purpose.

    Raises:
        ConfigError: if there is no such site.
        StateError: if that cannot be written; doing it again ends what was begun.
    """
    had_key = kits.remove(site)
    for name in (place.NODES, place.SKEW):
        _forget(kits.state / name, site)
    left = kits.nodes()
    going, short = {}, []
    for run in runs.runs_of(kits.state):
        folder = runs.folder_of(kits.state, run)
        try:
            if runs.read(folder).state in runs.ENDED:
                continue
            launch = Launch.load(runs.launch_file(folder))
        except StateError:
            continue  # `status` says what is damaged
        if site in launch.nodes:
            going[run] = sum(left.get(s) == key for s, key in launch.nodes.items())
            if going[run] < launch.config.federation.min_sites:
                short.append(run)
    kit = kits.folder / site
    return Removed(
        site=site,
        had_key=had_key,
        kit=kit if kit.is_dir() else None,
        going=going,
        short=tuple(short),
    )


def _forget(path: Path, site: str) -> None:
    """Drop what was kept of a site's node."""
    try:
        told = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return  # nothing was kept, or whoever reads it says that it is damaged
    if isinstance(told, dict) and told.pop(site, None) is not None:
        write_text(path, json.dumps(told, indent=2))
