"""Opens the site of a node: by what its hospital set, never by what a message says."""

import os
from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from vgmedgen.errors import ConfigError
from vgmedgen.site import Site

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


@lru_cache(maxsize=64)
def _site(folder: str) -> Site:
    return Site(Path(folder))
