"""A warrant: the coordinator's signature under a whole message, weights and all.

The SuperLink that carries messages is not trusted, nor is whoever has a key to join it:
without the signing key nobody can have a hospital train, on whatever weights, or install
anything.
"""

from collections.abc import Sequence

from vgmedgen.errors import PolicyError, TrustError
from vgmedgen.trust.signing import SigningKey, signed_by

COORDINATOR = "coordinator"
SIGNATURE = "signature"  # the one word of a message that its signature cannot cover
_CONTEXT = "vgmedgen order 1\n"  # a signature for one purpose must not serve another


def sign(key: SigningKey, said: str) -> str:
    """The signature of a message, by all else that it says."""
    return key.sign(_content(said))


def check(coordinator: str, signature: str, said: str, trusted: Sequence[str]) -> None:
    """Accept a message from a coordinator that the site trusts.

    Args:
        coordinator: whose message it says it is; empty where nobody signs.
        signature: of the message.
        said: its kind, and the fingerprint of all else that it says.
        trusted: signing keys; empty at a site that also serves unsigned runs.

    Raises:
        PolicyError: if it is unsigned, or by a coordinator that is not trusted.
        TrustError: if the signature is not that of this message.
    """
    if not coordinator and not trusted:
        return
    if trusted and coordinator not in trusted:
        raise PolicyError(
            f"the message is by coordinator {coordinator[:16] or 'nobody'}, which "
            "policy.coordinators does not list; add the key only if you know whose it is"
        )
    if not signed_by(coordinator, _content(said), signature):
        raise TrustError(
            "the coordinator's signature is not that of this message; somebody on the "
            "way has changed it"
        )


def _content(said: str) -> bytes:
    return (_CONTEXT + said).encode()
