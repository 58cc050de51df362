"""A coordinator's own folder: its settings, its keys, and which site has which key.

```text
<kits>/coordinator/  coordinator.yaml ca.crt ca.key server.crt server.key signing.key
                     coordinator.pub nodes.json state/
<kits>/<site>/       what a hospital gets (server.provision)
```

`ca.key` may be kept elsewhere: only `renew` needs it.
"""

import difflib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from vgmedgen.config.load import load
from vgmedgen.config.ranges import within
from vgmedgen.errors import ConfigError, StateError, TrustError
from vgmedgen.files import write_text
from vgmedgen.trust import certificates, nodekeys
from vgmedgen.trust.files import read_secret
from vgmedgen.trust.journal import Journal
from vgmedgen.trust.signing import SigningKey

HOME = "coordinator"
CONFIG, NODES = "coordinator.yaml", "nodes.json"
REMOVED = "removed.json"  # sites that were removed, and the key that each had
CA, CA_KEY = "ca.crt", "ca.key"
CERTIFICATE, KEY = "server.crt", "server.key"
SIGNING_KEY, PUBLIC = "signing.key", "coordinator.pub"
LOCAL = ("localhost", "127.0.0.1")  # what the server's own processes dial
SOON = timedelta(days=30)
_SITE = re.compile("[a-z0-9-]{1,40}")


@dataclass(frozen=True, kw_only=True)
class CoordinatorConfig:
    """What `coordinator.yaml` says."""

    name: str = ""  # of this coordinator, for people
    host: str = ""  # that sites dial; the server certificate names it
    port: int = 8443  # that sites dial
    listen: str = "0.0.0.0"  # noqa: S104 - address of the public listener; sites dial in
    admin_port: int = 8444  # loopback only
    page_port: int = 8445  # loopback only
    base: str = ""  # folder of the base bundle
    base_digest: str = ""  # that every kit names

    def __post_init__(self) -> None:
        """Check ranges."""
        if not self.name or not self.name.isprintable():
            raise ConfigError("name must be one line of text")
        if not certificates.is_host(self.host):
            raise ConfigError(
                f"host '{self.host[:80]}' is neither a host name nor an address, such as "
                "fl.example.org"
            )
        ports = {
            "port": self.port,
            "admin_port": self.admin_port,
            "page_port": self.page_port,
        }
        within("coordinator", 1, 65_535, **ports)
        if len(set(ports.values())) < len(ports):
            raise ConfigError(f"port, admin_port and page_port must differ: {ports}")


class Kits:
    """A kits folder that was provisioned."""

    def __init__(self, folder: Path, config: CoordinatorConfig) -> None:
        self.folder, self.config = folder, config
        self.home = folder / HOME
        self.state = self.home / "state"

    @classmethod
    def open(cls, folder: Path, *, serving: bool = True) -> Self:
        """Open a kits folder.

        Args:
            folder: what `provision` made.
            serving: whether its keys and certificates must be fit for a server now;
                False to look at them, or to renew.

        Raises:
            ConfigError: if it is no kits folder, or coordinator.yaml is not valid.
            StateError: if nodes.json is damaged.
            TrustError: for a key or certificate that cannot be used.
        """
        path = folder / HOME / CONFIG
        if not path.is_file():
            raise ConfigError(
                f"{folder} is no kits folder: there is no {path}; make one with "
                "`vgmedgen-server provision`"
            )
        kits = cls(folder.absolute(), load(CoordinatorConfig, path))
        kits._check_secrets()
        kits.nodes()
        if serving:
            kits.check()
        return kits

    def check(self, now: datetime | None = None) -> None:
        """Accept keys and certificates that a server can start with.

        Raises:
            TrustError: for the first that it cannot.
        """
        ca, certificate = self.home / CA, self.home / CERTIFICATE
        try:
            certificates.check_chain(ca, certificate, now)
        except TrustError as error:
            raise TrustError(f"{error}: {self._renewal}") from None
        names = certificates.names(certificate)
        if self.config.host not in names:
            raise TrustError(
                f"{certificate} is for {', '.join(names) or 'no host'}, but "
                f"{CONFIG} says that sites dial {self.config.host}: {self._renewal}"
            )
        key = certificates.load_key(self.home / KEY)
        if key.public_key() != certificates.load(certificate).public_key():
            raise TrustError(
                f"{self.home / KEY} is not the key of {certificate}: {self._renewal}"
            )

    def nodes(self) -> dict[str, str]:
        """Public key of every registered site: the bytes that Flower names it by, hex.

        Raises:
            StateError: if they cannot be read.
        """
        path = self.home / NODES
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            whole = isinstance(found, dict) and all(
                _SITE.fullmatch(site) and nodekeys.fingerprint(bytes.fromhex(key))
                for site, key in found.items()
            )
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, TrustError):
            whole = False
        if not whole or len(set(found.values())) < len(found):
            raise StateError(
                f"{path} is damaged; put it back from a backup, or move it away and "
                "register every site's node.pub again"
            )
        return {site: str(found[site]) for site in sorted(found)}

    def signing_key(self) -> SigningKey:
        """The key that signs runs and releases.

        Raises:
            TrustError: if it cannot be used, or is not the one that the sites know.
        """
        key = SigningKey.load(self.home / SIGNING_KEY)
        path = self.home / PUBLIC
        try:
            known = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            known = ""
        if known != key.public:
            raise TrustError(
                f"{self.home / SIGNING_KEY} is not the key of {path}, which every site "
                "was given; put both back from a backup"
            )
        return key

    def sites(self) -> list[str]:
        """Every site that has a kit here, or a registered key, and was not removed."""
        kits = {path.parent.name for path in self.folder.glob("*/site.yaml")}
        return sorted((kits - self.removed().keys()) | self.nodes().keys())

    def expiries(self) -> dict[str, datetime]:
        """When the certificates end: `ca`, `server`."""
        return {
            "ca": certificates.expiry(self.home / CA),
            "server": certificates.expiry(self.home / CERTIFICATE),
        }

    def warnings(self, now: datetime | None = None) -> list[str]:
        """One line for each certificate that has expired or soon will."""
        now = now or datetime.now(UTC)
        todo = {
            "ca": "provision new kits in another folder, and send them to every site",
            "server": self._renewal,
        }
        found = []
        for name, end in self.expiries().items():
            if end <= now:
                told = f"expired on {end:%Y-%m-%d}"
            elif end - now < SOON:
                days = (end - now).days
                told = f"expires in {days} day{'s' * (days != 1)} ({end:%Y-%m-%d})"
            else:
                continue
            found.append(f"the {name} certificate {told}: {todo[name]}")
        return found

    def removed(self) -> dict[str, str]:
        """Sites that were removed, and the key that each had, hex; empty for none.

        Raises:
            StateError: if the list cannot be read.
        """
        path = self.home / REMOVED
        try:
            found = json.loads(path.read_text("utf-8"))
            whole = all(isinstance(w, str) for pair in found.items() for w in pair)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError):
            whole = False
        if not whole:
            raise StateError(f"{path} is damaged; put it back from a backup")
        return dict(found)

    def remove(self, site: str) -> bool:
        """Shut `site` out; whether it had a key.

        Raises:
            ConfigError: if there is no such site.
            StateError: if that cannot be written; doing it again ends what was begun.
        """
        with self.locked():
            self._check_kit(site)
            nodes, gone = self.nodes(), self.removed()
            key = nodes.pop(site, "")
            digest = hashlib.sha256(bytes.fromhex(key)).hexdigest() if key else ""
            Journal(self.state / "audit.jsonl").add("remove", site=site, node=digest)
            # the list first: what follows can then be done again
            gone[site] = key or gone.get(site, "")
            write_text(self.home / REMOVED, f"{json.dumps(gone, indent=2)}\n")
            if key:
                text = json.dumps(nodes, indent=2, sort_keys=True)
                write_text(self.home / NODES, f"{text}\n")
        return bool(key)

    def register(
        self,
        site: str,
        public_line: str,
        *,
        replace: bool = False,
        readmit: bool = False,
    ) -> None:
        """Let the node with this key in as `site`.

        Args:
            site: that has a kit here.
            public_line: its node.pub.
            replace: whether it may take the place of another key.
            readmit: whether a site that was removed may come back.

        Raises:
            ConfigError: for a site without a kit, or one that was removed.
            StateError: if that cannot be written; the keys are as they were.
            TrustError: for a line that is no key, a key that another site has, or one
                in place of another without `replace`.
        """
        self.register_all({site: public_line}, replace=replace, readmit=readmit)

    def register_all(
        self, lines: Mapping[str, str], *, replace: bool = False, readmit: bool = False
    ) -> None:
        """Register the keys of several sites, all or none (see `register`)."""
        with self.locked():
            before, gone = self.nodes(), self.removed()
            after = dict(before)
            for site, line in lines.items():
                if site in gone and not readmit:
                    raise ConfigError(
                        f"{site} was removed; if it shall come back: vgmedgen-server "
                        f"register {site} node.pub --readmit --kits {self.folder}"
                    )
                if site not in gone:
                    self._check_kit(site)
                public = nodekeys.public_bytes(line)
                known = {s: key for s, key in gone.items() if key} | after
                after[site] = _admitted(known, site, public, replace=replace or readmit)
            journal = Journal(self.state / "audit.jsonl")
            for site, key in after.items():
                if before.get(site) != key:
                    digest = hashlib.sha256(bytes.fromhex(key)).hexdigest()
                    why = "replaced" if site in before else ""
                    journal.add("register", site=site, node=digest, why=why)
            if gone.keys() & lines.keys():
                kept = {s: key for s, key in gone.items() if s not in lines}
                write_text(self.home / REMOVED, f"{json.dumps(kept, indent=2)}\n")
            if after != before:
                text = json.dumps(after, indent=2, sort_keys=True)
                write_text(self.home / NODES, f"{text}\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While no other process changes this folder."""
        number = os.open(self.home, os.O_RDONLY)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            yield
        finally:
            os.close(number)

    def _check_kit(self, site: str) -> None:
        check_site(site)
        known = self.sites()
        if site not in known:
            near = difflib.get_close_matches(site, known, n=1)
            hint = f"did you mean '{near[0]}'? Else make" if near else "make"
            raise ConfigError(
                f"there is no kit for site '{site}' in {self.folder}; {hint} one with "
                f"`vgmedgen-server provision --sites {site}`"
            )

    def _check_secrets(self) -> None:
        self.signing_key()
        for name in (KEY, CA_KEY):  # an authority's key is best kept elsewhere
            if (self.home / name).exists():
                read_secret(self.home / name)

    @property
    def _renewal(self) -> str:
        return f"vgmedgen-server renew --kits {self.folder}"


def _admitted(
    nodes: Mapping[str, str], site: str, public: bytes, *, replace: bool
) -> str:
    """The key as it is kept, if `site` may have it."""
    key, short = public.hex(), nodekeys.fingerprint(public)
    for other, its in nodes.items():
        if its == key and other != site:
            raise TrustError(
                f"two nodes with one key: {short} is {other}'s; {site} must make its own "
                "with `vgmedgen-client keygen`"
            )
    before = nodes.get(site, key)
    if before != key and not replace:
        raise TrustError(
            f"{site} has the key {nodekeys.fingerprint(bytes.fromhex(before))} already; "
            "ask the site whether it made a new one, then give --replace"
        )
    return key


def check_site(site: str) -> None:
    """Accept a site's name.

    Raises:
        ConfigError: for anything else.
    """
    if not _SITE.fullmatch(site) or site == HOME:
        raise ConfigError(
            f"site name '{site[:60]}' must be at most 40 lower-case letters, digits and "
            f"hyphens, and not '{HOME}'"
        )
