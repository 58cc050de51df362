"""How far each site's ledger had come when it last answered, and whether it went back.

A hospital that puts back an old copy of its ledger, by accident or not, would spend its
patients' privacy twice. The copy is whole, so the site itself may not notice; the
coordinator remembers what it was told (see `vgmedgen.privacy.mark`).
"""

import json
from collections.abc import Mapping
from pathlib import Path

from server import place, runs
from server.launch import Launch
from vgmedgen.errors import StateError
from vgmedgen.files import write_text
from vgmedgen.privacy.mark import went_back


def follow(launch: Launch, words: Mapping[str, str]) -> None:
    """Keep the mark in a site's reply, if there is one; a simulation keeps none.

    Raises:
        StateError: if the site's ledger went back.
    """
    if words["site"] in launch.nodes and "ledger" in words:
        Marks(runs.state_of(launch.folder)).follow(words["site"], words["ledger"])


class Marks:
    """The marks of all sites, in one file of the coordinator's state folder."""

    def __init__(self, state: Path) -> None:
        self.path = state / place.LEDGERS

    def follow(self, site: str, mark: str) -> None:
        """Keep a site's new mark.

        Raises:
            StateError: if its ledger went back, or the file cannot be read or written.
        """
        known = self._read()
        before = known.get(site)
        if before == mark:
            return
        if before is not None and went_back(before, mark):
            raise StateError(
                f"the ledger of {site} went back: {before.partition('-')[0]} rounds were "
                f"booked in it when it last answered, now {mark.partition('-')[0]}, or "
                "others; the hospital has to put its latest ledger.sqlite and ledger.head "
                "back before anything trains there"
            )
        write_text(self.path, json.dumps({**known, site: mark}, indent=2))

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return {str(site): str(mark) for site, mark in dict(found).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError):
            raise StateError(
                f"{self.path} cannot be read; put it back from a backup: it holds how far "
                "every hospital's ledger has come"
            ) from None
