"""The coordinator's signature under a release: who says that it is the run's, and when.

It covers the digest of the manifest, which covers every byte of the release, and the time.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vgmedgen.config.ranges import digest_of
from vgmedgen.errors import PolicyError, ReleaseError, TrustError
from vgmedgen.trust.signing import SigningKey, signed_by

FILE = "signature.json"
LONGEST = 600  # characters of a signature as JSON
_CONTEXT = "vgmedgen release 1\n"  # a signature for one purpose must not serve another
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_MOST_AHEAD = timedelta(days=1)  # by which two clocks may differ
_FORMS = {
    "release": "[0-9a-f]{64}",
    "created": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "coordinator": "[0-9a-f]{64}",
    "signature": "[0-9a-f]{128}",
}


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Who signed which release when."""

    release: str  # digest of its manifest
    created: (
        str  # UTC, such as 2026-01-31T17:05:00Z; later ones sort after earlier ones
    )
    coordinator: str  # public key, 64 hexadecimal digits
    signature: str  # 128 hexadecimal digits

    def __post_init__(self) -> None:
        """Check the forms.

        Raises:
            ReleaseError: if a part has another form than its own.
        """
        for name, form in _FORMS.items():
            if not re.fullmatch(form, str(getattr(self, name)), re.ASCII):
                raise _damaged(name)
        try:
            datetime.strptime(self.created, _TIME).replace(tzinfo=UTC)
        except ValueError:
            raise _damaged("created") from None

    def to_json(self) -> str:
        """One line of ASCII that `from_json` reads back equal."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Signature":
        """Read what `to_json` wrote, and nothing that is only nearly so.

        Raises:
            ReleaseError: for anything else.
        """
        try:
            told = json.loads(text) if len(text) <= LONGEST else None
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict) or set(told) != set(_FORMS):
            raise _damaged("its parts")
        read = cls(**{name: str(value) for name, value in told.items()})
        if read.to_json() != text:
            raise _damaged("its form")
        return read


def sign(manifest: Mapping[str, Any], key: SigningKey, created: datetime) -> Signature:
    """Sign the release that `manifest` describes.

    Args:
        manifest: of the release, whole.
        key: of the coordinator.
        created: when, with its time zone; kept in whole seconds.

    Raises:
        ValueError: if `created` has no time zone.
    """
    if created.tzinfo is None:
        raise ValueError("a release is signed at a time with a time zone")
    release, when = digest_of(manifest), created.astimezone(UTC).strftime(_TIME)
    return Signature(
        release=release,
        created=when,
        coordinator=key.public,
        signature=key.sign(_content(release, when)),
    )


def check(
    signature: Signature | None, manifest: Mapping[str, Any], trusted: Sequence[str]
) -> None:
    """Accept a release that a coordinator whom the site trusts has signed.

    Args:
        signature: None for a release without one.
        manifest: of the release.
        trusted: signing keys, as `policy.coordinators` lists them.

    Raises:
        ReleaseError: if the signature is that of another release.
        PolicyError: if there is none, or its coordinator is not trusted.
        TrustError: if it is not the coordinator's.
    """
    if not trusted:
        raise PolicyError(
            "no coordinator is trusted here, so no release can be: policy.coordinators in "
            "site.yaml lists the keys whose releases may be installed; copy the 64 "
            "hexadecimal digits of coordinator.pub there"
        )
    if signature is None:
        raise PolicyError(
            f"the release is not signed: it has no {FILE}; ask the coordinator for the "
            "published one"
        )
    if signature.coordinator not in trusted:
        raise PolicyError(
            f"the release is signed by coordinator {signature.coordinator[:16]}, which "
            "policy.coordinators does not list; add the key only if you know whose it is"
        )
    check_own(signature, manifest)


def check_own(signature: Signature, manifest: Mapping[str, Any]) -> None:
    """Accept a signature that is this release's and made by the key that it names.

    Whether that key is to be trusted, `check` decides.

    Raises:
        ReleaseError: if it is that of another release.
        TrustError: if the key did not make it.
    """
    release = digest_of(manifest)
    if signature.release != release:
        raise ReleaseError(
            f"the signature is that of release {signature.release[:16]}, this is "
            f"{release[:16]}; fetch the release again"
        )
    said = _content(release, signature.created)
    if not signed_by(signature.coordinator, said, signature.signature):
        raise TrustError(
            f"coordinator {signature.coordinator[:16]} did not sign this release at "
            f"{signature.created}; somebody has changed it: fetch the release again"
        )


def check_time(signature: Signature) -> None:
    """Refuse a signature of days to come: no later release could follow such a one.

    It is asked when a release is installed, and not of one that is.

    Raises:
        PolicyError: if it is dated more than a day ahead.
    """
    now = datetime.now(UTC)
    if datetime.strptime(signature.created, _TIME).replace(tzinfo=UTC) > (
        now + _MOST_AHEAD
    ):
        raise PolicyError(
            f"the release is dated {signature.created}, here it is "
            f"{now.strftime(_TIME)}, and a day ahead is the limit; set the clock right, "
            "or ask the coordinator to sign the release with theirs set right"
        )


def _content(release: str, created: str) -> bytes:
    return f"{_CONTEXT}{release}\n{created}".encode()


def _damaged(what: str) -> ReleaseError:
    return ReleaseError(
        f"the signature of the release is damaged ({what}); fetch the release again"
    )
