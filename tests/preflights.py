"""Sites for the preflight to look at, and how its lines are read."""

import shutil
from contextlib import contextmanager

import pytest

from client.preflight import Finding, examine, network
from tests.loopback import HOST, authority, closed_port, coordinator, server_files
from vgmedgen.data.layouts import write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.trust import nodekeys
from vgmedgen.trust.signing import SigningKey

SITE = """
name: site-a
base: "{base}"
base_digest: "{digest}"
sources: [{{dataset: busi, root: images}}]
policy: {{coordinators: [{key}], min_units: 5}}
coordinator: {{address: "{address}"}}
"""
QUICK = {
    "site.yaml",
    "policy",
    "folder",
    "ledger",
    "audit log",
    "approvals",
    "node key",
    "CA certificate",
    "node",
    "port",
    "TLS",
    "clock",
    "registered",
}
LOCAL = {
    *("site.yaml", "policy", "folder", "ledger", "audit log", "approvals"),
    *("node key", "CA certificate", "node"),
}
NETWORK = QUICK - LOCAL


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_phantoms("ultrasound", folder, 12, 0, 64, tint_of(0))
    return folder


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A CA, a node's key and a coordinator's, as a kit and `keygen` leave them."""
    folder = tmp_path_factory.mktemp("kit")
    folder.chmod(0o700)
    ca = authority(folder, "ca")
    authority(folder, "other")
    (folder / "coordinator.pub").write_text(SigningKey.make().public + "\n")
    nodekeys.make(folder / "node.key")
    return folder, ca


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(network, "TIMEOUT_S", 60.0)


@pytest.fixture
def site(tmp_path, kit, images):
    """A site's folder in which all is well, but nobody at the coordinator's address."""
    folder = tmp_path / "site"
    shutil.copytree(kit[0], folder)
    (folder / "images").symlink_to(images)
    write(folder, address=f"{HOST}:{closed_port()}")
    return folder


def write(folder, *, address, base="", digest="", more=""):
    key = (folder / "coordinator.pub").read_text().strip()
    text = SITE.format(base=base, digest=digest, key=key, address=address)
    (folder / "site.yaml").write_text(text + more)


@contextmanager
def served(site, kit, **how):
    """The site's coordinator, as `loopback.coordinator` plays it."""
    folder, ca = kit
    own = {name: how.pop(name) for name in ("hosts", "days", "ago") if name in how}
    with coordinator(server_files(folder, ca, **own), **how) as port:
        write(site, address=f"{HOST}:{port}")
        yield port


def of(findings) -> dict[str, Finding]:
    for finding in findings:
        assert finding.told, finding
        assert "\n" not in finding.told + finding.todo
        assert finding.todo or (finding.ok and not finding.warning), finding
        assert finding.ok or not finding.warning
    found = {finding.name: finding for finding in findings}
    assert len(found) == len(findings)
    return found


def quick(site) -> dict[str, Finding]:
    return of(examine(site, quick=True))


def wrong(found) -> set[str]:
    return {name for name, finding in found.items() if not finding.ok}


def warned(found) -> set[str]:
    return {name for name, finding in found.items() if finding.warning}
