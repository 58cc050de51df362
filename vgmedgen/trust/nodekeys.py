"""A site's own key: what its node proves to the coordinator's server.

The site makes it and sends only the public half. A private key that travelled, or that
others can read, is refused.
"""

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from vgmedgen.errors import TrustError
from vgmedgen.files import write_text
from vgmedgen.trust.files import read_secret, write_secret

MOST_SKEW_S = 300.0  # a node signs the time: so far off it may be, ahead or behind

_LONGEST = 4096  # characters of a public key's line


def make(path: Path) -> str:
    """Make a key: the private half at `path`, the public one beside it as `.pub`.

    Returns:
        The public half as one OpenSSH line, which the coordinator registers.

    Raises:
        StateError: if it cannot be written; nothing is left behind.
        TrustError: if there is a key already.
    """
    public = path.with_suffix(".pub")
    if public == path:
        raise TrustError(f"{path} is the name of a public key; name it node.key")
    key = generate_private_key(SECP384R1())
    form = (Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_secret(path, key.private_bytes(*form))
    line = public_line(key)
    try:
        write_text(public, f"{line}\n")
    except BaseException:
        path.unlink()
        raise
    return line


def load(path: Path) -> EllipticCurvePrivateKey:
    """Read a private key.

    Raises:
        TrustError: if it is missing, readable by others, behind a passphrase, or not an
            EC key of a NIST curve in OpenSSH form.
    """
    content = read_secret(path)
    try:
        key = load_ssh_private_key(content, password=None)
    except TypeError:  # what the library raises where it would need the passphrase
        raise TrustError(
            f"{path} is behind a passphrase, which a node cannot type; make a key with "
            "`vgmedgen-client keygen`"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise TrustError(
            f"{path} is not a private key in OpenSSH form; make one with "
            "`vgmedgen-client keygen`"
        ) from None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise TrustError(
            f"{path} is a {type(key).__name__}, but a node needs an EC key (P-384); make "
            "one with `vgmedgen-client keygen`"
        )
    return key


def public_line(key: EllipticCurvePrivateKey) -> str:
    """The public half of `key` as one OpenSSH line."""
    public = key.public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def public_bytes(line_or_path: str | Path) -> bytes:
    """A public key as the server names it: PEM SubjectPublicKeyInfo.

    Args:
        line_or_path: an OpenSSH line, or the file that holds it.

    Raises:
        TrustError: if it is missing, or not one EC key of a NIST curve.
    """
    where, line = "this line", line_or_path
    if isinstance(line, Path):
        where = str(line)
        try:
            line = line.read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            told = getattr(error, "strerror", None) or "it is not text"
            raise TrustError(f"cannot read {where}: {told}") from None
    line = line.strip()
    if "PRIVATE KEY" in line:
        raise TrustError(
            f"{where} is a private key, which must never leave its site; send node.pub "
            "instead, and make a new key if this one was sent to anybody"
        )
    if not line.isascii() or "\n" in line or len(line) > _LONGEST:
        raise _unfit(where)
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise _unfit(where) from None
    if not isinstance(key, EllipticCurvePublicKey):
        raise _unfit(where)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(public: bytes) -> str:
    """The short name of a public key, as `ssh-keygen -l` prints it.

    Args:
        public: what `public_bytes` returns.

    Raises:
        TrustError: if these are not the bytes of a public key.
    """
    try:
        key = load_pem_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        raise _unfit("this key")
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _unfit(where: str) -> TrustError:
    return TrustError(
        f"{where} is not one EC public key in OpenSSH form (ecdsa-sha2-nistp384 …); ask "
        "the site for the line of its node.pub"
    )
