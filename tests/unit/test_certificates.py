"""Certificates: what a real TLS handshake makes of them, strictly."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vgmedgen.errors import ConfigError, TrustError
from vgmedgen.trust import certificates
from vgmedgen.trust.certificates import Issued, make_authority, make_server
from vgmedgen.trust.files import write_secret

HOSTS = ["fl.example.org", "127.0.0.1", "::1"]
NOW = datetime.now(UTC)


@pytest.fixture
def ca() -> Issued:
    return make_authority("Example authority", 3650)


def written(folder: Path, name: str, issued: Issued) -> Path:
    write_secret(folder / f"{name}.key", issued.key_pem)
    (folder / f"{name}.crt").write_bytes(issued.certificate_pem)
    return folder / f"{name}.crt"


def handshake(ca: Path, server: Path, dialled: str) -> str:
    """What a client that trusts `ca` says to a server on loopback; empty if content."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server, server.with_suffix(".key"))
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        stream, _ = listener.accept()
        try:
            with context.wrap_socket(stream, server_side=True) as secured:
                secured.sendall(b"here")
        except OSError:  # the client hung up, as it should
            stream.close()

    thread = threading.Thread(target=serve)
    thread.start()
    trusting = ssl.create_default_context(cafile=str(ca))
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        with (
            socket.create_connection(listener.getsockname(), timeout=60) as stream,
            trusting.wrap_socket(stream, server_hostname=dialled) as secured,
        ):
            assert secured.recv(4) == b"here"
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    else:
        return ""
    finally:
        thread.join()
        listener.close()


@pytest.mark.parametrize("dialled", [*HOSTS, "FL.EXAMPLE.ORG"])
def test_a_strict_client_accepts_every_name_of_the_server(ca, tmp_path, dialled):
    server = written(tmp_path, "server", make_server(ca, HOSTS, 30))
    assert not handshake(written(tmp_path, "ca", ca), server, dialled)
    assert certificates.names(server) == HOSTS


@pytest.mark.parametrize("dialled", ["evil.example.org", "example.org", "127.0.0.2"])
def test_a_client_refuses_a_name_that_the_server_does_not_have(ca, tmp_path, dialled):
    server = written(tmp_path, "server", make_server(ca, HOSTS, 30))
    told = handshake(written(tmp_path, "ca", ca), server, dialled)
    assert "mismatch" in told
    assert "not valid for" in told


def test_a_client_refuses_an_expired_server(ca, tmp_path):
    old = make_authority("Example authority", 3650, now=NOW - timedelta(days=100))
    expired = make_server(old, HOSTS, 30, now=NOW - timedelta(days=60))
    server, root = written(tmp_path, "server", expired), written(tmp_path, "ca", old)
    assert handshake(root, server, HOSTS[0]) == "certificate has expired"
    with pytest.raises(TrustError, match=r"server\.crt expired on"):
        certificates.check_chain(root, server)
    certificates.check_chain(root, server, NOW - timedelta(days=40))


def test_a_client_refuses_a_server_of_another_authority_of_the_same_name(ca, tmp_path):
    other = make_authority("Example authority", 3650)
    server = written(tmp_path, "server", make_server(other, HOSTS, 30))
    root = written(tmp_path, "ca", ca)
    assert handshake(root, server, HOSTS[0])
    with pytest.raises(TrustError, match="not signed by the authority"):
        certificates.check_chain(root, server)


def test_a_servers_key_cannot_sign_further_servers(ca, tmp_path):
    server = make_server(ca, HOSTS, 30)
    below = written(tmp_path, "below", make_server(server, HOSTS, 20))
    middle = written(tmp_path, "server", server)
    below.write_bytes(below.read_bytes() + middle.read_bytes())
    assert handshake(written(tmp_path, "ca", ca), below, HOSTS[0])
    with pytest.raises(TrustError, match="not the certificate of an authority"):
        certificates.check_chain(middle, below)


def test_a_server_never_outlives_its_authority(tmp_path):
    short = make_authority("Example authority", 10)
    server = make_server(short, HOSTS, 825).certificate
    assert server.not_valid_after_utc == short.certificate.not_valid_after_utc
    later = NOW + timedelta(days=11)
    with pytest.raises(TrustError, match="the authority expired on"):
        make_server(short, HOSTS, 825, now=later)


def test_a_certificate_says_when_it_ends(ca, tmp_path):
    path = written(tmp_path, "server", make_server(ca, HOSTS, 30))
    left = certificates.expiry(path) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)
    root = written(tmp_path, "ca", ca)
    certificates.check_chain(root, path)
    with pytest.raises(TrustError, match="set this machine's clock right"):
        certificates.check_chain(root, path, NOW - timedelta(days=2))
    with pytest.raises(TrustError, match=r"server\.crt expired on"):
        certificates.check_chain(root, path, NOW + timedelta(days=31))
    with pytest.raises(TrustError, match=r"ca\.crt expired on"):
        certificates.check_chain(root, path, NOW + timedelta(days=3651))


def test_a_clock_that_is_a_little_behind_is_forgiven(ca, tmp_path):
    path = written(tmp_path, "server", make_server(ca, HOSTS, 30))
    root = written(tmp_path, "ca", ca)
    now = datetime.now(UTC)  # NOW is when the tests were collected, long ago by then
    certificates.check_chain(root, path, now - timedelta(minutes=50))


def test_renewing_can_keep_the_key(ca):
    first = make_server(ca, HOSTS, 30)
    again = make_server(ca, HOSTS, 60, key=first.key)
    assert again.certificate.public_key() == first.certificate.public_key()
    assert again.certificate.serial_number != first.certificate.serial_number
    assert make_server(ca, HOSTS, 30).key.public_key() != first.key.public_key()


@pytest.mark.parametrize(
    "host", ["", "*.example.org", "fl example", "fl_1.org", "a..b", "-a.org", "h:8443"]
)
def test_a_host_that_nobody_can_dial_is_refused(ca, host):
    assert not certificates.is_host(host)
    with pytest.raises(ConfigError, match="neither a host name nor an address"):
        make_server(ca, [host], 30)


def test_a_fingerprint_is_the_one_that_others_show(ca, tmp_path):
    import hashlib

    path = written(tmp_path, "ca", ca)
    der = ssl.PEM_cert_to_DER_cert(path.read_text())
    plain = certificates.fingerprint(path).replace(":", "").lower()
    assert plain == hashlib.sha256(der).hexdigest()


def test_a_file_that_is_no_certificate_is_refused_in_one_line(ca, tmp_path):
    (tmp_path / "nonsense.crt").write_text("nonsense")
    for path, match in (
        (tmp_path / "missing.crt", "cannot read"),
        (tmp_path / "nonsense.crt", "not a certificate in PEM form"),
    ):
        for look in (certificates.expiry, certificates.names, certificates.fingerprint):
            with pytest.raises(TrustError, match=match) as caught:
                look(path)
            assert "\n" not in str(caught.value)


def test_only_an_ec_key_that_nobody_else_can_read_is_loaded(ca, tmp_path):
    written(tmp_path, "ca", ca)
    assert (
        certificates.load_key(tmp_path / "ca.key").public_key() == ca.key.public_key()
    )
    (tmp_path / "ca.key").chmod(0o640)
    with pytest.raises(TrustError, match="mode 640"):
        certificates.load_key(tmp_path / "ca.key")
    write_secret(tmp_path / "other.key", b"nonsense")
    with pytest.raises(TrustError, match="not an EC private key"):
        certificates.load_key(tmp_path / "other.key")
