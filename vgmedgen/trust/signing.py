"""The coordinator's Ed25519 key: it signs what a run asks, and what a run publishes.

A public key is told as 64 hexadecimal digits everywhere: in policies, messages, files.
"""

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from vgmedgen.errors import TrustError
from vgmedgen.trust.files import read_secret, write_secret


@dataclass(frozen=True)
class SigningKey:
    """A private key, and what is done with it."""

    private: Ed25519PrivateKey

    @classmethod
    def make(cls) -> "SigningKey":
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Read a key that `save` wrote.

        Raises:
            TrustError: if it is missing, readable by others, or no Ed25519 key.
        """
        try:
            found = load_pem_private_key(read_secret(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # a passphrase too
            found = None
        if not isinstance(found, Ed25519PrivateKey):
            raise TrustError(
                f"{path} is not an Ed25519 private key in PEM form without a "
                "passphrase; put it back from a backup"
            )
        return cls(found)

    def save(self, path: Path) -> None:
        """Write the key so that only its owner can read it.

        Raises:
            StateError: if it cannot be written.
            TrustError: if there is a file already.
        """
        content = self.private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        write_secret(path, content)

    @property
    def public(self) -> str:
        """The public half, 64 hexadecimal digits."""
        return self.private.public_key().public_bytes_raw().hex()

    def sign(self, content: bytes) -> str:
        """Signature of `content`, 128 hexadecimal digits."""
        return self.private.sign(content).hex()


def signed_by(public: str, content: bytes, signature: str) -> bool:
    """Whether `signature` is that of `content` by the key whose public half is given."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), content)
    except (ValueError, InvalidSignature):
        return False
    return True
