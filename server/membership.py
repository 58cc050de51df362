"""Which sites of a run are still the coordinator's."""

import json
from pathlib import Path

from server import runs
from server.launch import Launch

NODES = "nodes.json"  # site -> public key, beside the state folder (see server.kits)
REMOVED = "removed"  # what stands for a site's code from then on


class Membership:
    """Looks at the registered keys whenever it is asked.

    A run knows its sites by the keys that they had when it was prepared. One that was
    removed since, or has another key, has no part in the run any more.
    """

    def __init__(self, launch: Launch) -> None:
        self._nodes = dict(launch.nodes)
        self._path: Path = runs.state_of(launch.folder).parent / NODES
        self._gone: frozenset[str] = frozenset()

    def removed(self) -> frozenset[str]:
        """Sites of the run whose key is registered no longer; none in a simulation.

        While the keys cannot be read it is those of the last time that they could.
        """
        if not self._nodes:
            return frozenset()
        try:
            now = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError):
            return self._gone
        if isinstance(now, dict):
            known = self._nodes.items()
            self._gone = frozenset(site for site, key in known if now.get(site) != key)
        return self._gone
