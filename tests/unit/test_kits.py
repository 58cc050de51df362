"""A coordinator's folder: opened only when fit, renewed, and whose node may come in."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.kits import Kits
from server.provision import renew
from tests.provisioned import SITES, contents, days_until, line, made, seal_base
from vgmedgen.errors import ConfigError, StateError, TrustError
from vgmedgen.trust import certificates, nodekeys
from vgmedgen.trust.journal import Journal

NOW = datetime.now(UTC)


@pytest.fixture
def base(tmp_path) -> Path:
    return seal_base(tmp_path / "base")


@pytest.fixture
def kits(base) -> Kits:
    return made(base).kits


def test_a_registered_key_is_kept_as_flower_names_it(kits, tmp_path):
    mine = line(tmp_path, "a")
    kits.register("hospital-a", mine)
    kits.register("hospital-a", f"{mine} it@hospital-a\n")  # the same again
    stored = json.loads((kits.home / "nodes.json").read_text())
    assert stored == {"hospital-a": nodekeys.public_bytes(mine).hex()}
    assert Kits.open(kits.folder).nodes() == stored
    entries = Journal(kits.state / "audit.jsonl").entries()
    told = [(entry["event"], entry["site"]) for entry in entries]
    assert told == [("register", "hospital-a")]


def test_two_nodes_never_share_a_key(kits, tmp_path):
    mine = line(tmp_path, "a")
    kits.register("hospital-a", mine)
    for replace in (False, True):
        with pytest.raises(TrustError, match=r"two nodes with one key.*hospital-a's"):
            kits.register("hospital-b", mine, replace=replace)
    assert set(kits.nodes()) == {"hospital-a"}
    other = line(tmp_path, "b")
    with pytest.raises(TrustError, match="two nodes with one key"):
        kits.register_all({"hospital-a": mine, "hospital-b": mine})
    kits.register_all({"hospital-a": mine, "hospital-b": other})
    assert set(kits.nodes()) == set(SITES)


def test_a_key_is_replaced_only_when_asked_to(kits, tmp_path):
    first, second = line(tmp_path, "1"), line(tmp_path, "2")
    kits.register("hospital-a", first)
    with pytest.raises(TrustError, match=r"SHA256:.*give --replace"):
        kits.register("hospital-a", second)
    assert kits.nodes()["hospital-a"] == nodekeys.public_bytes(first).hex()
    kits.register("hospital-a", second, replace=True)
    assert kits.nodes()["hospital-a"] == nodekeys.public_bytes(second).hex()
    assert Journal(kits.state / "audit.jsonl").entries()[-1]["why"] == "replaced"


@pytest.mark.parametrize(
    ("site", "match"),
    [
        ("Hospital-A", "site name"),
        ("coordinator", "site name"),
        ("../a", "site name"),
        ("hospital-aa", r"did you mean 'hospital-a'\?"),
        ("zz", "provision --sites zz"),
    ],
)
def test_only_a_site_with_a_kit_is_registered(kits, tmp_path, site, match):
    with pytest.raises(ConfigError, match=match):
        kits.register(site, line(tmp_path, "a"))
    assert kits.nodes() == {}


def test_a_line_that_is_no_key_is_refused_and_nothing_is_kept(kits):
    before = contents(kits.folder)
    for wrong in ("", "nonsense", "ssh-ed25519 AAAA"):
        with pytest.raises(TrustError):
            kits.register("hospital-a", wrong)
    assert contents(kits.folder) == before


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", '{"hospital-a": "zz"}', '{"hospital-a": 7}']
)
def test_damaged_nodes_are_refused_and_never_overwritten(kits, tmp_path, text):
    (kits.home / "nodes.json").write_text(text)
    with pytest.raises(StateError, match=r"nodes\.json is damaged"):
        Kits.open(kits.folder)
    with pytest.raises(StateError):
        kits.register("hospital-a", line(tmp_path, "a"))
    assert (kits.home / "nodes.json").read_text() == text


def test_a_folder_that_is_no_kits_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no kits folder.*provision"):
        Kits.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("host: [", "is not YAML"),
        ("- 1", "coordinator.yaml"),
        ("hosst: fl.example.org", "did you mean 'host'"),
        ("name: a\nhost: fl.example.org\nport: 99999", "port must lie in"),
        ("name: a\nhost: fl.example.org\nport: 8444", "must differ"),
        ("name: a\nhost: two words", "neither a host name"),
        ("host: fl.example.org", "name must be"),
    ],
)
def test_a_wrong_coordinator_yaml_is_refused_in_one_line(kits, text, match):
    (kits.home / "coordinator.yaml").write_text(text)
    with pytest.raises(ConfigError, match=match) as caught:
        Kits.open(kits.folder)
    assert "\n" not in str(caught.value)
    assert "coordinator.yaml" in str(caught.value)


@pytest.mark.parametrize("name", ["server.key", "signing.key", "ca.key"])
def test_a_key_that_others_can_read_is_refused(kits, name):
    (kits.home / name).chmod(0o640)
    for serving in (True, False):
        with pytest.raises(TrustError, match=rf"{name} can be read by others"):
            Kits.open(kits.folder, serving=serving)


@pytest.mark.parametrize("name", ["server.key", "signing.key", "ca.crt", "server.crt"])
def test_a_missing_key_or_certificate_is_refused(kits, name):
    (kits.home / name).unlink()
    with pytest.raises(TrustError, match=f"cannot read .*{name}"):
        Kits.open(kits.folder)


def test_the_authoritys_key_may_be_kept_elsewhere_but_renewing_needs_it(kits):
    (kits.home / "ca.key").rename(kits.folder.parent / "safe")
    opened = Kits.open(kits.folder)
    with pytest.raises(TrustError, match="bring it back"):
        renew(opened)
    (kits.folder.parent / "safe").rename(kits.home / "ca.key")
    renew(opened)


def test_a_signing_key_that_is_not_the_published_one_is_refused(kits):
    (kits.home / "coordinator.pub").write_text("0" * 64)
    with pytest.raises(TrustError, match=r"is not the key of .*coordinator\.pub"):
        Kits.open(kits.folder)


def test_a_certificate_for_another_host_is_refused_until_it_is_renewed(kits):
    path = kits.home / "coordinator.yaml"
    path.write_text(path.read_text().replace("fl.example.org", "new.example.org"))
    with pytest.raises(TrustError, match=r"is for fl\.example\.org.*renew --kits"):
        Kits.open(kits.folder)
    renew(Kits.open(kits.folder, serving=False))
    Kits.open(kits.folder)


def test_another_authoritys_certificate_is_refused(kits):
    other = certificates.make_authority("other", 30)
    server = certificates.make_server(other, ["fl.example.org"], 20)
    (kits.home / "server.crt").write_bytes(server.certificate_pem)
    with pytest.raises(TrustError, match="not signed by the authority"):
        Kits.open(kits.folder)


def test_a_key_that_is_not_the_certificates_is_refused(kits):
    certificate = kits.home / "server.crt"
    before = certificate.read_bytes()
    (kits.home / "server.key").unlink()
    renew(Kits.open(kits.folder, serving=False))  # makes a new key
    Kits.open(kits.folder)
    certificate.write_bytes(before)
    with pytest.raises(TrustError, match=r"server\.key is not the key of"):
        Kits.open(kits.folder)


def expired(kits: Kits) -> None:
    key = certificates.load_key(kits.home / "ca.key")
    ca = (certificates.load(kits.home / "ca.crt"), key)
    own = certificates.load_key(kits.home / "server.key")
    before = NOW - timedelta(days=40)
    old = certificates.make_server(ca, ["fl.example.org"], 30, key=own, now=before)
    (kits.home / "server.crt").write_bytes(old.certificate_pem)


def test_an_expired_certificate_is_refused_and_renewed_under_the_same_authority(kits):
    sites = {site: contents(kits.folder / site) for site in SITES}
    key = (kits.home / "server.key").read_bytes()
    expired(kits)
    with pytest.raises(TrustError, match=r"expired on.*renew --kits"):
        Kits.open(kits.folder)
    opened = Kits.open(kits.folder, serving=False)
    end = renew(opened, 90)
    assert days_until(end) == 90
    assert Kits.open(kits.folder).expiries()["server"] == end
    assert (kits.home / "server.key").read_bytes() == key
    assert {site: contents(kits.folder / site) for site in SITES} == sites
    assert Journal(kits.state / "audit.jsonl").entries()[-1]["event"] == "renew"


def test_warnings_begin_a_month_before_the_end(base):
    kits = made(base, days=100, authority_days=200).kits
    assert kits.warnings() == []
    assert kits.warnings(NOW + timedelta(days=69)) == []
    (soon,) = kits.warnings(NOW + timedelta(days=88, hours=12))
    assert re.search(r"server certificate expires in 11 days \(\d{4}-.*renew", soon)
    (late,) = kits.warnings(NOW + timedelta(days=101))
    assert "server certificate expired on" in late
    assert len(kits.warnings(NOW + timedelta(days=180))) == 2
    authority = kits.warnings(NOW + timedelta(days=300))[0]
    assert "ca certificate expired" in authority
    assert "new kits" in authority
