"""The proxy that stands between this machine and its coordinator, if one does.

Connections of a node go through it, so whatever fails on the way there may be the
proxy's fault; and who set which variable is what a person has to know to mend it.
"""

import os
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from vgmedgen.errors import ConfigError

_KINDS = ("https", "all")  # of the variables that HTTP libraries read for https
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy, and the variable that names it."""

    variable: str
    host: str
    port: int
    login: str = ""  # of HTTP's basic kind; never in a line for people

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port} (of {self.variable})"

    @property
    def headers(self) -> dict[str, str]:
        """What it wants to know of whoever goes through it."""
        return {"Proxy-Authorization": f"Basic {self.login}"} if self.login else {}


def proxy_of(host: str) -> Proxy | None:
    """The proxy that Flower's HTTP library would take to `host`.

    Raises:
        ConfigError: if the variable that names it names none.
    """
    told = urllib.request.getproxies()
    kind = next((kind for kind in _KINDS if told.get(kind)), "")
    if not kind or urllib.request.proxy_bypass(host):
        return None
    variable = _variable(kind)
    url = told[kind]
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        usual = _PORTS[parts.scheme]  # no SOCKS, which the node cannot speak
        port = parts.port or usual
    except (ValueError, KeyError):
        parts, port = None, 0
    if parts is None or not parts.hostname:
        raise ConfigError(
            f"{variable} does not name an HTTP proxy; write it as http://host:port, or "
            f"put {host} into no_proxy to go without one"
        )
    both = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    login = b64encode(both.encode()).decode() if parts.username is not None else ""
    return Proxy(variable, parts.hostname, port, login)


def _variable(kind: str) -> str:
    """How the one that counts is written; lower case wins, as in Python's own."""
    for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY"):
        if os.environ.get(name):
            return name
    return "this system's settings"
