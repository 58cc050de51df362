"""Examines the node's key and the CA that its coordinator's certificate is from."""

from datetime import UTC, datetime

from client.preflight.finding import Caution
from client.preflight.place import Place
from vgmedgen.errors import TrustError
from vgmedgen.trust import certificates, nodekeys

SOON = 30  # days before an expiry in which it is a warning


def node_key(place: Place) -> str | Caution:
    """The node's private key can be used, and node.pub is its other half."""
    key = nodekeys.load(place.key)
    line = nodekeys.public_line(key)
    name = nodekeys.fingerprint(nodekeys.public_bytes(line))
    public = place.key.with_suffix(".pub")
    if not public.is_file():
        return Caution(
            f"{name}; there is no {public.name}",
            f"write it anew: ssh-keygen -y -f {place.key} > {public}",
        )
    if nodekeys.public_bytes(public) != nodekeys.public_bytes(line):
        raise TrustError(
            f"{public} is not the public half of {place.key.name}; write it anew: "
            f"ssh-keygen -y -f {place.key} > {public}, and tell the coordinator"
        )
    return name


def authority(place: Place) -> str | Caution:
    """The CA certificate can be used, today and for a while."""
    certificates.check_chain(place.ca, place.ca)  # a CA is signed by itself
    found = certificates.expiry(place.ca)
    told = f"{expires(found)}; SHA256 {certificates.fingerprint(place.ca)}"
    if days_until(found) < SOON:
        return Caution(told, "ask the coordinator for a new kit before that day")
    return told


def days_until(day: datetime) -> int:
    """Whole days from now until `day`."""
    return (day - datetime.now(UTC)).days


def expires(day: datetime) -> str:
    """The words for an expiry to come."""
    return f"expires on {day:%Y-%m-%d}, in {days_until(day)} days"
