"""Examines the way to the coordinator, step by step, as the node itself would go it."""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

from cryptography import x509

from client.connection import address_of, explain
from client.preflight.finding import Caution
from client.preflight.keys import SOON, days_until, expires
from client.preflight.place import Place
from client.proxy import proxy_of
from vgmedgen.errors import TrustError, VGMedGenError
from vgmedgen.trust import nodekeys
from vgmedgen.trust.nodekeys import MOST_SKEW_S

TIMEOUT_S = 10.0  # of each step on the wire
WORTH_S = 60.0  # a clock that is so far off is worth a word
HEALTH = "/health"
_MISMATCH = (62, 64)  # OpenSSL's codes: another host name, another address
_EXPIRED = 10


def port(place: Place) -> str:
    """Something takes connections at the coordinator's host and port."""
    where = place.coordinator.address
    host, number = address_of(where)
    proxy = proxy_of(host)
    with _open(place, None):
        pass
    through = f" through the proxy {proxy}" if proxy else ""
    return f"{_name(host, number)} takes connections{through}"


def tls(place: Place) -> str | Caution:
    """The server proves with the CA of this site that it is the one that was dialled."""
    try:
        found = _certificate(place, _context(place))
    except ssl.SSLCertVerificationError as error:
        raise _certificate_error(place, error) from None
    end = found.not_valid_after_utc
    told = f"the server is {', '.join(_names(found))}; its certificate {expires(end)}"
    if days_until(end) < SOON:
        return Caution(told, "tell the coordinator to renew it before that day")
    return told


def clock(place: Place) -> str | Caution:
    """This machine and the coordinator agree on what time it is."""
    with _open(place, _context(place)) as line:
        begun = time.time()
        line.request("GET", HEALTH)
        reply = line.getresponse()
        reply.read()
        local = (begun + time.time()) / 2
    if reply.status != 200:  # noqa: PLR2004 - HTTP's own number
        raise explain(
            ConnectionError(f"status {reply.status}"), where=place.coordinator.address
        )
    date = reply.getheader("Date")
    if date is None:
        return Caution(
            "the coordinator tells no time to compare this machine's clock with",
            f"keep the clock right by NTP: it may be {MOST_SKEW_S:.0f} s off at most",
        )
    # a Date header holds whole seconds, cut off: half of one lies between on average
    behind = parsedate_to_datetime(date).timestamp() + 0.5 - local
    way = "behind" if behind > 0 else "ahead of"
    told = f"this machine's clock is {abs(behind):.0f} s {way} the coordinator's"
    limit = f"{MOST_SKEW_S:.0f} s are allowed either way"
    if abs(behind) >= MOST_SKEW_S:
        raise TrustError(f"{told}, and {limit}; set the clock by NTP, here or there")
    if abs(behind) > WORTH_S:
        return Caution(f"{told}; {limit}", "set the clock by NTP, here or there")
    return f"{abs(behind):.0f} s apart from the coordinator's"


def registered(place: Place) -> str:
    """The coordinator knows this node's key; asked without joining."""
    from client import flower  # noqa: PLC0415 - Flower costs a second

    key = nodekeys.load(place.key)
    where = _name(*address_of(place.coordinator.address))
    known = flower.registered(where, _context(place), key, timeout=TIMEOUT_S)
    name = nodekeys.fingerprint(nodekeys.public_bytes(nodekeys.public_line(key)))
    if not known:
        raise TrustError(
            f"the coordinator does not know this node's key {name}; send it "
            f"{place.key.with_suffix('.pub').name}, and compare this name on the telephone"
        )
    return f"the coordinator knows {name}"


@contextmanager
def _open(place: Place, context: ssl.SSLContext | None) -> Iterator[HTTPConnection]:
    """A connection, through TLS or bare; what fails on it is explained.

    A certificate that is refused is left to the caller, who can say more about it.
    """
    host, number = address_of(place.coordinator.address)
    proxy = proxy_of(host)
    at = (proxy.host, proxy.port) if proxy else (host, number)
    line = (
        HTTPSConnection(*at, timeout=TIMEOUT_S, context=context)
        if context
        else HTTPConnection(*at, timeout=TIMEOUT_S)
    )
    try:
        if proxy:
            line.set_tunnel(host, number, proxy.headers)
        line.connect()
        yield line
    except ssl.SSLCertVerificationError:
        raise
    except (OSError, HTTPException) as error:
        raise explain(error, where=_name(host, number), proxy=proxy) from None
    finally:
        line.close()


def _context(place: Place) -> ssl.SSLContext:
    """How Flower's node checks a server: this CA alone, and the name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=place.ca.read_bytes().decode("ascii"))
    except (OSError, ValueError) as error:
        raise TrustError(
            f"{place.ca} cannot be read as a CA certificate ({type(error).__name__}); "
            "copy it from the kit again"
        ) from None
    return context


def _certificate_error(
    place: Place, error: ssl.SSLCertVerificationError
) -> VGMedGenError:
    """What is wrong with the certificate, with its own names and dates."""
    where = place.coordinator.address
    general = explain(error, where=where)
    if error.verify_code not in {*_MISMATCH, _EXPIRED}:
        return general
    shown = _shown(place)
    if error.verify_code in _MISMATCH:
        return TrustError(
            f"the certificate of {where} is for {', '.join(_names(shown)) or 'no name'}, "
            f"not for {address_of(where)[0]}; set coordinator.address to one of its "
            "names, or ask the coordinator for a certificate with this one"
        )
    end = shown.not_valid_after_utc
    if end > datetime.now(UTC):
        return (
            general  # the CA has, not the server's: an examination of its own says so
        )
    return TrustError(
        f"the certificate of {where} expired on {end:%Y-%m-%d %H:%M} UTC, and it is "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} here; ask the coordinator to renew it, if "
        "this clock is right"
    )


def _shown(place: Place) -> x509.Certificate:
    """The certificate of a server that was refused; nothing is sent to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _certificate(place, context)


def _certificate(place: Place, context: ssl.SSLContext) -> x509.Certificate:
    with _open(place, context) as line:
        bare: Any = line.sock  # of TLS, since there is a context
        return x509.load_der_x509_certificate(bare.getpeercert(binary_form=True))


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except x509.ExtensionNotFound:
        return []
    addresses = found.get_values_for_type(x509.IPAddress)
    return [*found.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _name(host: str, number: int) -> str:
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
