"""What goes wrong on the way to the SuperLink, as our errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from vgmedgen.errors import StateError, UnreachableError


@contextmanager
def reaching(refused: str = "the SuperLink refuses") -> Iterator[None]:
    """Turn what goes wrong on the way to the SuperLink into our errors."""
    try:
        yield
    except httpx.TransportError:
        raise UnreachableError(
            "the coordinator's server does not answer on its admin port; start it with "
            "`vgmedgen-server start`"
        ) from None
    except httpx.HTTPStatusError as error:
        told = " ".join(error.response.text.split())[:200]
        raise StateError(f"{refused}: {error.response.status_code} {told}") from None
