"""Keeps a few bytes from becoming gigabytes when a message is put together.

Flower sends an array in chunks, and an array may name one chunk any number of times. The
class is handed in, because nothing here knows the network.
"""

import json
from collections.abc import Mapping
from typing import Any

from vgmedgen.errors import ExchangeError

MOST_BYTES = 2**30  # of one array; all that is exchanged has some 10 MB


def limit(arrays: Any) -> None:  # noqa: ANN401 - a class of Flower's
    """Have `arrays.inflate` refuse an array that would unfold to more than the limit.

    Args:
        arrays: Flower's class of arrays; changed for the whole process, once.
    """
    before = arrays.inflate.__func__
    if getattr(before, "is_limited", False):
        return

    def inflate(
        cls: Any,  # noqa: ANN401
        object_content: bytes,
        children: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        told = json.loads(object_content.partition(b"\x00")[2])
        largest = max((len(one.data) for one in (children or {}).values()), default=0)
        if len(told["arraychunk_ids"]) * largest > MOST_BYTES:
            raise ExchangeError(
                f"an array of {len(told['arraychunk_ids'])} chunks would unfold to more "
                f"than {MOST_BYTES} bytes"
            )
        return before(cls, object_content, children)

    inflate.is_limited = True  # type: ignore[attr-defined]
    arrays.inflate = classmethod(inflate)
