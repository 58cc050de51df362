"""Opens the site of a node: by what its hospital set, never by what a message says."""

import logging
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message

from client.egress import FRAMING, last_look, limit_of
from client.ingress import plan_of, words_of
from client.runfiles import AUDIT
from vgmedgen.errors import ConfigError, StateError
from vgmedgen.site.folder import Site
from vgmedgen.trust.journal import Journal

log = logging.getLogger(__name__)

SITES_FOLDER = "VGMEDGEN_SITES"  # environment: parent of virtual sites' folders


def open_site(context: Context) -> Site:
    """The site that this node serves, by what its own operator set.

    Raises:
        ConfigError: if neither the node nor the environment names a folder.
    """
    node = context.node_config
    if "site" in node:
        return _site(str(node["site"]))
    parent = os.environ.get(SITES_FOLDER)
    if parent and "partition-id" in node:
        folders = sorted(p.parent for p in Path(parent).glob("*/site.yaml"))
        return _site(str(folders[int(node["partition-id"])]))
    raise ConfigError(
        "this node has no site: start it with --node-config 'site=\"/path/to/folder\"'"
    )


def warm(folder: Path) -> Site:
    """The site of a node, its base bundle checked, as `open_site` gives it too.

    Raises:
        ConfigError: if its site.yaml is no valid one.
        BaseError: if its base bundle is missing or changed.
    """
    site = _site(str(folder))
    log.info("%s is ready, base %s", site.name, site.bundle.digest[:12])
    return site


def look_of(site: Site) -> Callable[[Message, Message], None]:
    """The last look at a site's replies, which knows how large one may be."""

    def look(message: Message, reply: Message) -> None:
        # what was refused is not looked into: its plan may be anybody's, of any size
        refused = reply.has_error()
        most = FRAMING if refused else limit_of(site, plan_of(words_of(message)))
        last_look(message, reply, most)

    return look


def dropped_of(site: Site) -> Callable[[str], None]:
    """Keeps in a site's audit log that a reply was made and did not leave."""
    journal = Journal(site.folder / AUDIT)

    def dropped(code: str) -> None:
        try:
            journal.add("out", decision="dropped", code=code, why="last-look", bytes=0)
        except StateError:
            log.exception("the audit log cannot be written")

    return dropped


@lru_cache(maxsize=64)
def _site(folder: str) -> Site:
    return Site(Path(folder))
