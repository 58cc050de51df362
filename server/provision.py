"""Make a coordinator's folder and one kit per site, whole or not at all.

A kit holds nothing secret: the site makes its own key. With `make_keys`, for pilots, the
kit holds that key too and must travel as a secret does.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from server.kit_page import Kit, page
from server.kit_texts import coordinator_yaml, site_yaml
from server.kits import (
    CA,
    CA_KEY,
    CERTIFICATE,
    CONFIG,
    HOME,
    KEY,
    LOCAL,
    NODES,
    PUBLIC,
    SIGNING_KEY,
    CoordinatorConfig,
    Kits,
    check_site,
)
from vgmedgen.base import open_bundle
from vgmedgen.errors import ConfigError, StateError, TrustError
from vgmedgen.files import sha256, write_bytes, write_text
from vgmedgen.trust import certificates, nodekeys
from vgmedgen.trust.certificates import Issued
from vgmedgen.trust.files import write_secret
from vgmedgen.trust.journal import Journal
from vgmedgen.trust.signing import SigningKey

SITE_FILE, PAGE = "site.yaml", "README.html"
NODE_KEY, NODE_PUBLIC = "node.key", "node.pub"
_UNPRIVILEGED, _HIGHEST = 1024, 65_535  # ports


@dataclass(frozen=True, kw_only=True)
class Provisioned:
    """What was made, and what to do with it."""

    kits: Kits
    sites: tuple[str, ...]  # whose kits are new
    kept: tuple[str, ...]  # whose kits were there already, and are as they were
    coordinator: str  # public half of the signing key, 64 hex digits
    authority: str  # sha256 fingerprint of the CA certificate
    expiries: dict[str, datetime]  # ca, server
    todo: tuple[str, ...]  # next steps, one line each

    @property
    def folders(self) -> dict[str, Path]:
        """Where the coordinator's folder and every kit of this call lie."""
        names = (HOME, *self.kept, *self.sites)
        return {name: self.kits.folder / name for name in names}


def provision(
    *,
    sites: Sequence[str],
    host: str,
    port: int,
    out: Path,
    base: Path,
    make_keys: bool = False,
    days: int = 825,
    authority_days: int = 3650,
    name: str = "coordinator",
) -> Provisioned:
    """Make a kits folder, or add sites to one that is there.

    Args:
        sites: names of the sites.
        host: that they dial.
        port: that they dial.
        out: the kits folder.
        base: the base bundle that every site must hold.
        make_keys: also make the sites' own keys, for pilots.
        days: how long the server's certificate holds.
        authority_days: how long the authority holds.
        name: of the coordinator, for people.

    Raises:
        BaseError: if the base bundle is not whole.
        ConfigError: for a name, host or port that cannot be, or a folder that is
            another's; nothing is written.
        StateError: if the disk is full or not writable; nothing is left behind.
        TrustError: if keys that are there cannot be used.
    """
    if not sites:
        raise ConfigError("name at least one site: --sites hospital-a,hospital-b")
    for site in sites:
        check_site(site)
    twice = sorted({site for site in sites if list(sites).count(site) > 1})
    if twice:
        raise ConfigError(f"site '{twice[0]}' is named twice; names must differ")
    config = CoordinatorConfig(
        name=name,
        host=host,
        port=port,
        admin_port=_own_port(port),
        page_port=_own_port(port) + 1,
        base=str(base.resolve()),
        base_digest=open_bundle(base).digest,
    )
    out = out.absolute()
    if (out / HOME).exists():
        return _added(Kits.open(out), config, sites, make_keys=make_keys)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"{out} holds other files and no coordinator; choose a new folder"
        )
    with _staged(out.parent) as stage:
        new = stage / out.name
        _begin(new, config, days, authority_days)
        kits = Kits.open(new)
        for site in sites:
            _make_kit(kits, new, site, make_keys=make_keys)
        _register(kits, sites)
        _moved(new, out)
    return _facts(Kits.open(out), sites, (), make_keys=make_keys)


def renew(kits: Kits, days: int = 825) -> datetime:
    """Make a new server certificate under the same authority; sites need do nothing.

    The server's key stays; where it was moved away a new one is made. A running server
    shows the new certificate after its next start.

    Returns:
        When the new certificate ends.

    Raises:
        TrustError: if the authority's key is missing, or it has expired.
    """
    home = kits.home
    if not (home / CA_KEY).exists():
        raise TrustError(
            f"there is no {home / CA_KEY}; bring it back from where it is kept, renew, "
            "then take it away again"
        )
    ca = Issued(certificates.load(home / CA), certificates.load_key(home / CA_KEY))
    if ca.key.public_key() != ca.certificate.public_key():
        raise TrustError(f"{home / CA_KEY} is not the key of {home / CA}")
    with kits.locked():
        fresh = not (home / KEY).exists()
        key = None if fresh else certificates.load_key(home / KEY)
        hosts = _hosts(kits.config)
        server = certificates.make_server(ca, hosts, days, key=key)
        Journal(kits.state / "audit.jsonl").add("renew")
        if fresh:
            write_secret(home / KEY, server.key_pem)
        write_bytes(home / CERTIFICATE, server.certificate_pem)
    kits.check()
    return certificates.expiry(home / CERTIFICATE)


def _added(
    kits: Kits, asked: CoordinatorConfig, sites: Sequence[str], *, make_keys: bool
) -> Provisioned:
    for what in ("host", "port", "base_digest"):
        has, wants = getattr(kits.config, what), getattr(asked, what)
        if has != wants:
            raise ConfigError(
                f"{kits.folder} was made for {what} {has}, not {wants}; give the same, "
                "or choose another folder"
            )
    kept = [site for site in sites if (kits.folder / site).exists()]
    for site in kept:
        _check_same(kits, site, make_keys=make_keys)
    new = [site for site in sites if site not in kept]
    moved: list[Path] = []
    with _staged(kits.folder) as stage:
        for site in new:
            _make_kit(kits, stage, site, make_keys=make_keys)
        try:
            for site in new:
                _moved(stage / site, kits.folder / site)
                moved.append(kits.folder / site)
            _register(kits, sites)
        except BaseException:
            for folder in moved:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    return _facts(kits, new, kept, make_keys=make_keys)


def _begin(
    folder: Path, config: CoordinatorConfig, days: int, authority_days: int
) -> None:
    """Everything that is the coordinator's own."""
    home = folder / HOME
    for part in (home, home / "state"):
        part.mkdir(parents=True, mode=0o700)
    ca = certificates.make_authority(f"{config.name} authority", authority_days)
    server = certificates.make_server(ca, _hosts(config), days)
    signing = SigningKey.make()
    write_text(home / CONFIG, coordinator_yaml(config))
    write_secret(home / CA_KEY, ca.key_pem)
    write_bytes(home / CA, ca.certificate_pem)
    write_secret(home / KEY, server.key_pem)
    write_bytes(home / CERTIFICATE, server.certificate_pem)
    signing.save(home / SIGNING_KEY)
    write_text(home / PUBLIC, f"{signing.public}\n")
    write_text(home / NODES, "{}\n")


def _hosts(config: CoordinatorConfig) -> list[str]:
    """What the server's certificate names, each once."""
    return list(dict.fromkeys([config.host, *LOCAL]))


def _make_kit(kits: Kits, parent: Path, site: str, *, make_keys: bool) -> None:
    folder = parent / site
    folder.mkdir(mode=0o700)
    for name, content in _shared(kits, site).items():
        write_bytes(folder / name, content)
    if make_keys:
        nodekeys.make(folder / NODE_KEY)
    public = [NODE_PUBLIC] if make_keys else []
    write_text(
        folder / PAGE,
        page(
            Kit(
                site=site,
                config=kits.config,
                coordinator=kits.signing_key().public,
                authority=certificates.fingerprint(kits.home / CA),
                expiries=kits.expiries(),
                digests={
                    name: sha256(folder / name)
                    for name in (CA, PUBLIC, SITE_FILE, *public)
                },
                with_key=make_keys,
            )
        ),
    )


def _shared(kits: Kits, site: str) -> dict[str, bytes]:
    """The files of a kit that say the same whenever they are made."""
    text = site_yaml(site, kits.config, kits.signing_key().public)
    return {
        SITE_FILE: text.encode(),
        CA: (kits.home / CA).read_bytes(),
        PUBLIC: (kits.home / PUBLIC).read_bytes(),
    }


def _check_same(kits: Kits, site: str, *, make_keys: bool) -> None:
    folder = kits.folder / site
    for name, content in _shared(kits, site).items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            raise ConfigError(
                f"{folder} is there already, and its {name} is not what would be written; "
                f"leave {site} out, or move its folder away"
            )
    if make_keys and not (folder / NODE_PUBLIC).is_file():
        raise ConfigError(
            f"{folder} is there already without a key; let the site make its own with "
            "`vgmedgen-client keygen`"
        )


def _register(kits: Kits, sites: Sequence[str]) -> None:
    """Let in those whose key lies in their kit, as a crash may have kept from happening."""
    made = {site: kits.folder / site / NODE_PUBLIC for site in sites}
    lines = {
        site: path.read_text(encoding="utf-8")
        for site, path in made.items()
        if path.is_file()
    }
    fresh = {site: line for site, line in lines.items() if site not in kits.nodes()}
    kits.register_all(fresh)


@contextmanager
def _staged(parent: Path) -> Iterator[Path]:
    """A folder beside the result, gone with all that is in it when the block ends."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".provision-", dir=parent))
    except OSError as error:
        raise _unwritten(parent, error) from error
    try:
        yield stage
    except OSError as error:
        raise _unwritten(stage, error) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _moved(new: Path, place: Path) -> None:
    try:
        new.rename(place)
    except OSError as error:
        raise StateError(
            f"cannot move the new folder to {place}: {error.strerror or error}; nothing "
            "was changed there"
        ) from error


def _unwritten(folder: Path, error: OSError) -> StateError:
    return StateError(
        f"cannot write below {folder}: {error.strerror or error}; nothing was left "
        "behind: free some space or choose another folder, then start again"
    )


def _own_port(port: int) -> int:
    """The first of two loopback ports, beside the public one where there is room."""
    beside = _UNPRIVILEGED <= port <= _HIGHEST - 2
    return port + 1 if beside else CoordinatorConfig.admin_port


def _facts(
    kits: Kits, sites: Sequence[str], kept: Sequence[str], *, make_keys: bool
) -> Provisioned:
    where = kits.folder
    handing = (
        "hand each kit over as you would a password: it holds the site's private key"
        if make_keys
        else "send each site its folder: nothing in it is secret, but compare the "
        "fingerprints by telephone; as each node.pub comes back: "
        f"vgmedgen-server register SITE node.pub --kits {where}"
    )
    todo = (
        handing,
        f"keep {where / HOME / CA_KEY} off this machine; only renew needs it",
        f"start the server: vgmedgen-server start --kits {where}",
    )
    return Provisioned(
        kits=kits,
        sites=tuple(sites),
        kept=tuple(kept),
        coordinator=kits.signing_key().public,
        authority=certificates.fingerprint(kits.home / CA),
        expiries=kits.expiries(),
        todo=todo,
    )
