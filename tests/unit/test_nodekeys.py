"""A site's own key: made here, refused where it is not fit, named as Flower names it."""

import base64
import shutil
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

from vgmedgen.errors import StateError, TrustError
from vgmedgen.trust import nodekeys
from vgmedgen.trust.files import write_secret

PLAIN = (Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
LINE = (Encoding.OpenSSH, PublicFormat.OpenSSH)


def test_a_key_is_made_whole_and_only_its_owner_can_read_it(tmp_path):
    line = nodekeys.make(tmp_path / "node.key")
    assert line.startswith("ecdsa-sha2-nistp384 ")
    assert (tmp_path / "node.pub").read_text() == f"{line}\n"
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600
    assert b"OPENSSH PRIVATE KEY" in (tmp_path / "node.key").read_bytes()
    key = nodekeys.load(tmp_path / "node.key")
    assert isinstance(key.curve, ec.SECP384R1)
    assert nodekeys.public_line(key) == line
    assert nodekeys.make(tmp_path / "other.key") != line


def test_a_key_is_never_replaced_in_passing(tmp_path):
    line = nodekeys.make(tmp_path / "node.key")
    with pytest.raises(TrustError, match="exists; move it away"):
        nodekeys.make(tmp_path / "node.key")
    assert nodekeys.public_line(nodekeys.load(tmp_path / "node.key")) == line
    assert (tmp_path / "node.pub").read_text() == f"{line}\n"
    with pytest.raises(TrustError, match="name of a public key"):
        nodekeys.make(tmp_path / "other.pub")


def test_no_private_key_stays_where_its_public_half_cannot_be_written(
    tmp_path, monkeypatch
):
    def full(path, content):
        raise StateError("cannot write: no space left")

    monkeypatch.setattr(nodekeys, "write_text", full)
    with pytest.raises(StateError):
        nodekeys.make(tmp_path / "node.key")
    assert list(tmp_path.iterdir()) == []


def test_the_bytes_are_those_that_flower_knows_a_node_by(tmp_path):
    from flwr.supercore.primitives.asymmetric import (
        public_key_to_bytes,
        uses_nist_ec_curve,
    )

    line = nodekeys.make(tmp_path / "node.key")
    public = load_ssh_public_key(line.encode())
    assert uses_nist_ec_curve(public)
    assert nodekeys.public_bytes(line) == public_key_to_bytes(public)
    assert nodekeys.public_bytes(tmp_path / "node.pub") == public_key_to_bytes(public)
    # the node itself derives them from the private key
    private = nodekeys.load(tmp_path / "node.key")
    assert nodekeys.public_bytes(line) == public_key_to_bytes(private.public_key())


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_every_nist_curve_that_openssh_has_is_accepted(tmp_path, curve):
    key = ec.generate_private_key(curve())
    write_secret(tmp_path / "node.key", key.private_bytes(*PLAIN))
    loaded = nodekeys.load(tmp_path / "node.key")
    line = nodekeys.public_line(loaded)
    assert nodekeys.public_bytes(f"  {line} it@hospital-a\n").startswith(b"-----BEGIN")


def test_a_fingerprint_is_the_one_that_openssh_shows(tmp_path):
    line = nodekeys.make(tmp_path / "node.key")
    told = nodekeys.fingerprint(nodekeys.public_bytes(line))
    assert told.startswith("SHA256:")
    assert len(base64.b64decode(f"{told[7:]}=")) == 32
    other = nodekeys.make(tmp_path / "other.key")
    assert nodekeys.fingerprint(nodekeys.public_bytes(other)) != told
    if keygen := shutil.which("ssh-keygen"):
        path = tmp_path / "node.pub"
        shown = subprocess.run(
            [keygen, "-lf", path], check=True, capture_output=True, text=True
        )
        assert told in shown.stdout
    with pytest.raises(TrustError):
        nodekeys.fingerprint(b"nonsense")


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen here")
def test_a_key_that_openssh_made_is_accepted_unless_behind_a_passphrase(tmp_path):
    def made(name: str, *words: str):
        command = ["ssh-keygen", "-q", "-f", tmp_path / name, *words]
        subprocess.run(command, check=True, capture_output=True)
        return tmp_path / name

    good = made("good", "-t", "ecdsa", "-b", "384", "-N", "")
    line = nodekeys.public_line(nodekeys.load(good))
    assert nodekeys.public_bytes(line) == nodekeys.public_bytes(tmp_path / "good.pub")
    locked = made("locked", "-t", "ecdsa", "-b", "384", "-N", "five words")
    with pytest.raises(TrustError, match="behind a passphrase"):
        nodekeys.load(locked)
    other = made("other", "-t", "ed25519", "-N", "")
    with pytest.raises(TrustError, match="Ed25519PrivateKey, but a node needs"):
        nodekeys.load(other)


def unfit() -> dict[str, bytes]:
    key = ec.generate_private_key(ec.SECP384R1())
    pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "pkcs8": key.private_bytes(*pem),
        "ed25519": ed25519.Ed25519PrivateKey.generate().private_bytes(*PLAIN),
        "rsa": rsa.generate_private_key(65537, 2048).private_bytes(*PLAIN),
        "public": key.public_key().public_bytes(*LINE),
        "nonsense": b"nonsense",
        "empty": b"",
    }


def test_anything_but_an_ec_key_in_openssh_form_is_refused_in_one_line(tmp_path):
    for name, content in unfit().items():
        path = tmp_path / name
        write_secret(path, content)
        with pytest.raises(TrustError, match="keygen") as caught:
            nodekeys.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_key_that_is_missing_or_that_others_can_read_is_refused(tmp_path):
    with pytest.raises(TrustError, match="cannot read"):
        nodekeys.load(tmp_path / "node.key")
    nodekeys.make(tmp_path / "node.key")
    (tmp_path / "node.key").chmod(0o644)
    with pytest.raises(TrustError, match="mode 644"):
        nodekeys.load(tmp_path / "node.key")


def test_anything_but_one_ec_public_key_is_refused_in_one_line(tmp_path):
    line = nodekeys.make(tmp_path / "node.key")
    other = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(*LINE)
    for wrong in (
        "",
        "nonsense",
        other.decode(),
        f"{line}\n{line}",
        line[:-9],
        f"{line} \N{GREEK SMALL LETTER ALPHA}",
        line + " x" * 4096,
        nodekeys.public_bytes(line).decode(),
    ):
        with pytest.raises(TrustError, match=r"node\.pub") as caught:
            nodekeys.public_bytes(wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(TrustError, match="cannot read"):
        nodekeys.public_bytes(tmp_path / "missing.pub")
    (tmp_path / "bytes.pub").write_bytes(b"\xff\xfe")
    with pytest.raises(TrustError, match="not text"):
        nodekeys.public_bytes(tmp_path / "bytes.pub")


def test_a_private_key_sent_by_mistake_is_named_as_one_and_not_repeated(tmp_path):
    nodekeys.make(tmp_path / "node.key")
    content = (tmp_path / "node.key").read_text()
    for given in (content, tmp_path / "node.key"):
        with pytest.raises(TrustError, match="must never leave its site") as caught:
            nodekeys.public_bytes(given)
        assert content.splitlines()[1] not in str(caught.value)
