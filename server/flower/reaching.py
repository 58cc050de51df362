"""What goes wrong on the way to the SuperLink, as our errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from vgmedgen.errors import StateError, UnreachableError


@contextmanager
def reaching(refused: str = "the SuperLink refuses") -> Iterator[None]:
    """Turn what goes wrong on the way to the SuperLink into our errors.

    Args:
        refused: how a refusal is told.

    Raises:
        StateError: if the SuperLink refuses: the same request would be refused again.
        UnreachableError: if it does not answer, or fails at it: it may work later.
    """
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        told = " ".join(error.response.text.split())[:200]
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise UnreachableError(
                f"the SuperLink fails with {status}: its database may be locked or the "
                f"disk full; free some space, its log says more {told}".rstrip()
            ) from None
        raise StateError(f"{refused}: {status} {told}") from None
    except httpx.HTTPError:
        raise UnreachableError(
            "the SuperLink does not answer on its admin port; a running `vgmedgen-server "
            "start` starts it again by itself, otherwise start that"
        ) from None
