"""Secrets on disk, the coordinator's signatures, and a run's warrant."""

import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from vgmedgen.errors import PolicyError, StateError, TrustError
from vgmedgen.trust import files, warrant
from vgmedgen.trust.certificates import make_authority
from vgmedgen.trust.files import read_secret, write_secret
from vgmedgen.trust.signing import SigningKey, signed_by


def test_a_secret_is_its_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        write_secret(tmp_path / "new" / "key", b"secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "key").stat().st_mode) == 0o600
    assert read_secret(tmp_path / "new" / "key") == b"secret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601])
def test_a_secret_that_others_may_touch_is_refused_with_its_mode(tmp_path, mode):
    write_secret(tmp_path / "key", b"5f3a")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(TrustError, match=f"mode {mode:03o}.*chmod 600") as caught:
        read_secret(tmp_path / "key")
    assert "5f3a" not in str(caught.value)


def test_a_secret_that_is_missing_is_refused(tmp_path):
    with pytest.raises(TrustError, match=r"cannot read .*key: No such file"):
        read_secret(tmp_path / "key")


def test_a_secret_is_never_replaced_in_passing(tmp_path):
    write_secret(tmp_path / "key", b"first")
    with pytest.raises(TrustError, match="exists; move it away"):
        write_secret(tmp_path / "key", b"second")
    assert read_secret(tmp_path / "key") == b"first"


def test_a_full_disk_leaves_no_half_secret(tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StateError, match="No space left"):
        write_secret(tmp_path / "key", b"secret")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot write"):
        write_secret(tmp_path / "file" / "key", b"secret")


def test_a_key_that_was_saved_is_the_same_key(tmp_path):
    key = SigningKey.make()
    key.save(tmp_path / "signing.key")
    again = SigningKey.load(tmp_path / "signing.key")
    assert again.public == key.public
    assert len(key.public) == 64
    assert signed_by(key.public, b"content", again.sign(b"content"))
    with pytest.raises(TrustError, match="exists"):
        SigningKey.make().save(tmp_path / "signing.key")
    assert SigningKey.load(tmp_path / "signing.key").public == key.public


def test_a_signature_can_be_checked_without_this_project():
    key = SigningKey.make()
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public))
    public.verify(bytes.fromhex(key.sign(b"content")), b"content")


def test_only_that_content_by_that_key_is_signed():
    key, other = SigningKey.make(), SigningKey.make()
    signature = key.sign(b"content")
    assert signed_by(key.public, b"content", signature)
    assert not signed_by(key.public, b"content.", signature)
    assert not signed_by(other.public, b"content", signature)
    for place in range(0, len(signature), 7):
        digit = "0" if signature[place] != "0" else "1"
        changed = signature[:place] + digit + signature[place + 1 :]
        assert not signed_by(key.public, b"content", changed)
    for public in ("", "zz" * 32, key.public[:-2], key.public + "00"):
        assert not signed_by(public, b"content", signature)
    for broken in ("", "zz" * 64, signature[:-2], signature * 2):
        assert not signed_by(key.public, b"content", broken)


def test_another_kind_of_key_or_none_at_all_is_refused_in_one_line(tmp_path):
    path = tmp_path / "signing.key"
    key = SigningKey.make().private
    form = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"words"))
    for content in (
        make_authority("other", 1).key_pem,
        key.private_bytes(*form),
        b"nonsense",
        b"",
    ):
        path.unlink(missing_ok=True)
        write_secret(path, content)
        with pytest.raises(TrustError, match="not an Ed25519 private key") as caught:
            SigningKey.load(path)
        assert "\n" not in str(caught.value)


DIGEST = "d" * 64


def test_a_message_that_a_trusted_coordinator_signed_is_accepted():
    key, other = SigningKey.make(), SigningKey.make()
    trusted = [other.public, key.public]
    warrant.check(key.public, warrant.sign(key, DIGEST), DIGEST, trusted)


def test_a_message_that_was_changed_on_the_way_is_refused():
    key = SigningKey.make()
    signature = warrant.sign(key, DIGEST)
    with pytest.raises(TrustError, match="changed it"):
        warrant.check(key.public, signature, "e" * 64, [key.public])
    with pytest.raises(TrustError, match="changed it"):
        warrant.check(key.public, signature[:-1] + "x", DIGEST, [key.public])


def test_a_coordinator_that_is_not_listed_is_refused():
    key, other = SigningKey.make(), SigningKey.make()
    with pytest.raises(PolicyError, match=f"coordinator {other.public[:16]}"):
        warrant.check(other.public, warrant.sign(other, DIGEST), DIGEST, [key.public])


def test_another_coordinators_signature_under_a_trusted_name_is_refused():
    key, other = SigningKey.make(), SigningKey.make()
    with pytest.raises(TrustError):
        warrant.check(key.public, warrant.sign(other, DIGEST), DIGEST, [key.public])


def test_an_unsigned_message_is_served_only_where_the_site_lists_nobody():
    warrant.check("", "", DIGEST, [])
    with pytest.raises(PolicyError, match="nobody"):
        warrant.check("", "", DIGEST, [SigningKey.make().public])


def test_a_wrong_signature_is_refused_even_where_the_site_lists_nobody():
    key = SigningKey.make()
    warrant.check(key.public, warrant.sign(key, DIGEST), DIGEST, [])
    with pytest.raises(TrustError):
        warrant.check(key.public, "0" * 128, DIGEST, [])


def test_a_signature_for_another_purpose_is_no_warrant():
    key = SigningKey.make()
    with pytest.raises(TrustError):
        warrant.check(key.public, key.sign(DIGEST.encode()), DIGEST, [key.public])
