"""TLS certificates: an authority of the federation's own, and its server's certificate.

A site trusts this authority and no other, so neither a public authority nor an
intercepting proxy can stand between it and the coordinator.
"""

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vgmedgen.config.ranges import within
from vgmedgen.errors import ConfigError, TrustError
from vgmedgen.trust.files import read_secret

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST_DNS, _LONGEST_NAME = 253, 64  # characters
_LONGEST_DAYS = 36_500
_EARLIER = timedelta(hours=1)  # for sites whose clock is a little behind


class Issued(NamedTuple):
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as it is written to a file."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as it is written to a file."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_authority(name: str, days: int, *, now: datetime | None = None) -> Issued:
    """An authority that can sign servers and nothing below them."""
    within("certificate", 1, _LONGEST_DAYS, days=days)
    now = now or datetime.now(UTC)
    key = generate_private_key(SECP384R1())
    subject = _name(name)
    builder = (
        _begun(subject, subject, key, now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
    )
    return Issued(builder.sign(key, SHA384()), key)


def make_server(
    ca: tuple[x509.Certificate, EllipticCurvePrivateKey],
    hosts: Sequence[str],
    days: int,
    *,
    key: EllipticCurvePrivateKey | None = None,
    now: datetime | None = None,
) -> Issued:
    """A server's certificate for `hosts`, DNS names or addresses.

    It never outlives its authority.

    Args:
        ca: certificate and key of the authority.
        hosts: what sites may dial.
        days: how long it holds.
        key: the server's; None makes one.
        now: when it begins to hold; the present by default.

    Raises:
        ConfigError: for a host that is neither a name nor an address.
        TrustError: if the authority has expired.
    """
    within("certificate", 1, _LONGEST_DAYS, days=days)
    authority, signer = ca
    now = now or datetime.now(UTC)
    end = authority.not_valid_after_utc
    if end <= now:
        raise TrustError(
            f"the authority expired on {end:%Y-%m-%d} and can sign nothing more; "
            "provision new kits, and send every site its new ca.crt"
        )
    key = key or generate_private_key(SECP384R1())
    names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    until = min(end, now + timedelta(days=days))
    builder = (
        _begun(_name(hosts[0]), authority.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(server, critical=False)
        .add_extension(names, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
    )
    return Issued(builder.sign(signer, SHA384()), key)


def load(path: Path) -> x509.Certificate:
    """Read a certificate.

    Raises:
        TrustError: if it is missing, or no certificate in PEM form.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise TrustError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:
        raise TrustError(
            f"{path} is not a certificate in PEM form; copy it again from the kit"
        ) from None


def load_key(path: Path) -> EllipticCurvePrivateKey:
    """Read the private key of an authority or a server.

    Raises:
        TrustError: if it is missing, readable by others, or no EC key.
    """
    try:
        found = load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, EllipticCurvePrivateKey):
        raise TrustError(f"{path} is not an EC private key in PEM form")
    return found


def expiry(path: Path) -> datetime:
    """When the certificate at `path` ends, UTC."""
    return load(path).not_valid_after_utc


def names(path: Path) -> list[str]:
    """The DNS names and addresses that the certificate at `path` is for."""
    try:
        found = load(path).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (x509.ExtensionNotFound, ValueError):
        return []
    dns = found.value.get_values_for_type(x509.DNSName)
    addresses = found.value.get_values_for_type(x509.IPAddress)
    return [*dns, *(str(address) for address in addresses)]


def fingerprint(path: Path) -> str:
    """sha256 of the certificate at `path`, as browsers and openssl show it."""
    return load(path).fingerprint(SHA256()).hex(":").upper()


def check_chain(ca_path: Path, cert_path: Path, now: datetime | None = None) -> None:
    """Accept a certificate that holds now and that the authority has signed.

    Raises:
        TrustError: naming the file, and the date or what else is wrong.
    """
    now = now or datetime.now(UTC)
    authority, certificate = load(ca_path), load(cert_path)
    for path, found in ((ca_path, authority), (cert_path, certificate)):
        first, last = found.not_valid_before_utc, found.not_valid_after_utc
        if last <= now:
            raise TrustError(
                f"{path} expired on {last:%Y-%m-%d %H:%M} UTC; the coordinator has to "
                "make a new one"
            )
        if first > now:
            raise TrustError(
                f"{path} holds only from {first:%Y-%m-%d %H:%M} UTC; if that is past, set "
                "this machine's clock right"
            )
    try:
        constraints = authority.extensions.get_extension_for_class(
            x509.BasicConstraints
        )
        signs = constraints.value.ca
    except (x509.ExtensionNotFound, ValueError):
        signs = False
    if not signs:
        raise TrustError(f"{ca_path} is not the certificate of an authority")
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise TrustError(
            f"{cert_path} was not signed by the authority of {ca_path}; both must come "
            "from the same coordinator"
        ) from None


def is_host(host: str) -> bool:
    """Whether `host` is a DNS name or an address, as a certificate can hold it."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return len(host) <= _LONGEST_DNS and _DNS.fullmatch(host) is not None
    return True


def _host(host: str) -> x509.GeneralName:
    if not is_host(host):
        raise ConfigError(
            f"'{host[:80]}' is neither a host name nor an address; name the host that "
            "sites dial, such as fl.example.org"
        )
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common: str) -> x509.Name:
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, common[:_LONGEST_NAME])
    return x509.Name([attribute])


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePrivateKey,
    now: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    public: EllipticCurvePublicKey = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(until)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(public), critical=False
        )
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
