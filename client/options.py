"""Words that several verbs of `vgmedgen-client` take."""

import getpass
import re
from pathlib import Path
from typing import Annotated

import typer

from vgmedgen.errors import ConfigError
from vgmedgen.process.environment import NOBODY
from vgmedgen.release.folders import is_there
from vgmedgen.trust.facts import FACTS

Where = Annotated[
    Path,
    typer.Option(
        "--site",
        help="the site's site.yaml, or the folder it lies in",
        readable=False,  # ours says who may read it
    ),
]
By = Annotated[
    str, typer.Option("--by", help="who decides; default: the name of the login")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
HERE = Path("site.yaml")


def folder_of(site: Path) -> Path:
    """The folder of a site, by what `--site` says.

    Raises:
        ConfigError: if it is none.
    """
    if is_there(site) and site.is_dir():
        return site
    parent = site.parent
    if site.name != HERE.name or not (is_there(parent) and parent.is_dir()):
        raise ConfigError(
            f"{site} is no site: --site takes a folder, or the site.yaml that lies in it"
        )
    return parent


def officer(by: str) -> str:
    """The name that stands beside a decision.

    Raises:
        ConfigError: if it could not stand in an audit log, or the login has none.
    """
    name = by or getpass.getuser()
    if not by and name == NOBODY:
        raise ConfigError(
            "this login has no name of its own, and a decision is somebody's; say who "
            "decides: --by 'A. Officer'"
        )
    if not re.fullmatch(FACTS["approved_by"], name):
        raise ConfigError(
            f"'{name[:60]}' cannot stand beside a decision: letters, blanks, dots, "
            "hyphens and apostrophes, at most 60; say who decides: --by 'A. Officer'"
        )
    return name
