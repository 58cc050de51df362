"""A run's warrant: the coordinator's signature under what the run asks of a site.

The SuperLink that carries messages is not trusted with this: without the signing key
nobody can start a run at a hospital, whoever holds the server.
"""

import json
from collections.abc import Mapping, Sequence

from vgmedgen.errors import PolicyError, TrustError
from vgmedgen.trust.signing import SigningKey, signed_by

COORDINATOR = "coordinator"
SIGNATURE = "signature"
SIGNED = ("protocol", "run", "base", "exchange", "plan-digest")
_CONTEXT = "vgmedgen run 1\n"  # a signature for one purpose must not serve another


def sign(key: SigningKey, words: Mapping[str, str]) -> str:
    """The signature that a message needs beside `words`."""
    return key.sign(_content(words))


def check(words: Mapping[str, str], trusted: Sequence[str]) -> None:
    """Accept the words of a message from a coordinator that the site trusts.

    Args:
        words: of the message.
        trusted: signing keys; empty at a site that also serves unsigned runs.

    Raises:
        PolicyError: if the run is unsigned, or by a coordinator that is not trusted.
        TrustError: if the signature is not that of these words.
    """
    key = words[COORDINATOR]
    if not key and not trusted:
        return
    if trusted and key not in trusted:
        raise PolicyError(
            f"run {words['run']} is by coordinator {key[:16] or 'nobody'}, which "
            "policy.coordinators does not list; add the key only if you know whose it is"
        )
    if not signed_by(key, _content(words), words[SIGNATURE]):
        raise TrustError(
            f"run {words['run']}: the coordinator's signature is not that of what the "
            "run asks; somebody on the way has changed it"
        )


def _content(words: Mapping[str, str]) -> bytes:
    said = {name: words[name] for name in SIGNED}
    return (_CONTEXT + json.dumps(said, sort_keys=True)).encode()
