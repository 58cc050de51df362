"""Which records each message carries, in either direction, and how they are read.

The records themselves are Flower's; here they are only looked at through the few
attributes that count, so that a site and the server check with the same code.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from vgmedgen.errors import ExchangeError
from vgmedgen.exchange.payload import check_numbers, unpack
from vgmedgen.exchange.schema import DTYPE, WORDS, Specs
from vgmedgen.trust.warrant import SIGNATURE

_NUMPY = "numpy.ndarray"  # Flower's name for the bytes that numpy.save writes
_HEADER = 1024  # bytes that numpy.save may put before the values


class Kind(StrEnum):
    """The messages there are, by Flower's message type."""

    HELLO = "query.hello"
    TRAIN = "train"
    EVALUATE = "evaluate"
    INSTALL = "query.install"


class WireArray(Protocol):
    """A Flower array."""

    dtype: str
    shape: tuple[int, ...]
    stype: str
    data: bytes

    def numpy(self) -> np.ndarray:
        """The values."""
        ...


class Records(Protocol):
    """The content of a Flower message."""

    @property
    def array_records(self) -> Mapping[str, Mapping[str, Any]]:
        """Flat arrays by record and group."""
        ...

    @property
    def metric_records(self) -> Mapping[str, Mapping[str, Any]]:
        """Numbers by record and name."""
        ...

    @property
    def config_records(self) -> Mapping[str, Mapping[str, Any]]:
        """Words by record and name."""
        ...


@dataclass(frozen=True, kw_only=True)
class Form:
    """The records of one kind of message in one direction."""

    record: str  # name of the record of words
    words: frozenset[str]
    arrays: str = ""  # name of the record of flat arrays; empty where there is none
    numbers: str = ""  # name of the record of numbers; empty where there is none

    def read_words(self, content: Records) -> dict[str, str]:
        """The words of a message, after a look at all its records' names.

        Raises:
            ExchangeError: for a record or word too many or too few, or a word that
                does not have its form.
        """
        for what, found, listed in (
            ("words", content.config_records, self.record),
            ("arrays", content.array_records, self.arrays),
            ("numbers", content.metric_records, self.numbers),
        ):
            if set(found) != ({listed} if listed else set()):
                raise ExchangeError(
                    f"expected the records of {what} to be '{listed}', got "
                    f"{_listed(found)}"
                )
        words = content.config_records[self.record]
        if set(words) != self.words:
            raise ExchangeError(
                f"expected the words {_listed(self.words)}, got {_listed(words)}"
            )
        return {name: _word(name, words[name]) for name in sorted(words)}

    def read_arrays(
        self, content: Records, specs: Mapping[str, Specs]
    ) -> dict[str, dict[str, np.ndarray]]:
        """The tensors of a message: group -> name -> float32 array.

        Raises:
            ExchangeError: for another group, type, length or a value not finite.
        """
        record = content.array_records[self.arrays]
        if set(record) != set(specs):
            raise ExchangeError(
                f"expected the groups {_listed(specs)}, got {_listed(record)}"
            )
        return {group: _tensors(record[group], specs[group]) for group in specs}

    def read_numbers(self, content: Records, listed: Sequence[str]) -> dict[str, float]:
        """The numbers of a message, which must be those `listed`.

        Raises:
            ExchangeError: for a number too many, too few or out of its limits.
        """
        return check_numbers(content.metric_records[self.numbers], listed)


_ASKED = frozenset(
    {
        "protocol",
        "run",
        "base",
        "exchange",
        "plan",
        "plan-digest",
        "coordinator",
        "signature",
    }
)
_ROUND = frozenset({"round", "turn", "stage"})
_ORIGIN = frozenset({"site", "run", "base", "exchange"})
_ANSWERED = _ORIGIN | {"round", "stage"}

DOWN: Mapping[Kind, Form] = {
    Kind.HELLO: Form(record="order", words=_ASKED),
    Kind.TRAIN: Form(record="order", words=_ASKED | _ROUND, arrays="weights"),
    Kind.EVALUATE: Form(record="order", words=_ASKED | _ROUND, arrays="weights"),
    Kind.INSTALL: Form(
        record="order",
        words=_ASKED | _ROUND | {"manifest", "release-signature"},
        arrays="weights",
    ),
}
UP: Mapping[Kind, Form] = {
    Kind.HELLO: Form(record="origin", words=_ORIGIN | {"version", "ledger"}),
    Kind.TRAIN: Form(
        record="origin",
        words=_ANSWERED | {"ledger"},
        arrays="update",
        numbers="numbers",
    ),
    Kind.EVALUATE: Form(record="origin", words=_ANSWERED, numbers="numbers"),
    Kind.INSTALL: Form(record="origin", words=_ANSWERED | {"release"}),
}


def size(content: Records) -> int:
    """Bytes of everything in a message that is not framing."""
    arrays = sum(
        len(array.data)
        for record in content.array_records.values()
        for array in record.values()
    )
    words = sum(
        len(str(word))
        for record in content.config_records.values()
        for word in record.values()
    )
    return arrays + words + 8 * sum(len(r) for r in content.metric_records.values())


def to_sign(kind: str, content: Records) -> str:
    """What the signature of a message covers: its kind, and all that it says else.

    Without the kind, an order to train would also pass for one to evaluate.
    """
    return f"{kind} {fingerprint(content, leave_out=frozenset({SIGNATURE}))}"


def fingerprint(content: Records, *, leave_out: frozenset[str] = frozenset()) -> str:
    """sha256 of everything that a message says: equal content, equal fingerprint.

    Args:
        content: of the message.
        leave_out: names of words that do not count.
    """
    said = hashlib.sha256()
    for kind, records in (
        ("arrays", content.array_records),
        ("numbers", content.metric_records),
        ("words", content.config_records),
    ):
        for name in sorted(records):
            for key in sorted(records[name]):
                if kind == "words" and key in leave_out:
                    continue
                value = records[name][key]
                data = value.data if kind == "arrays" else str(value).encode()
                head = f"{kind}/{name}/{key}/{len(data)}\n"
                said.update(head.encode() + data)
    return said.hexdigest()


def _word(name: str, word: object) -> str:
    if not isinstance(word, str) or not re.fullmatch(WORDS[name], word):
        raise ExchangeError(f"the word '{name}' does not have its form")
    return word


def _tensors(array: WireArray, specs: Specs) -> dict[str, np.ndarray]:
    # Looked at before numpy reads it: the claimed shape decides how much is allocated.
    wanted = sum(spec.size for spec in specs)
    claims = (array.stype, array.dtype, array.shape)
    if claims != (_NUMPY, DTYPE, (wanted,)) or len(array.data) > 2 * wanted + _HEADER:
        raise ExchangeError(
            f"expected {wanted} values of {DTYPE} in one row, got "
            f"{str(array.dtype)[:20]} of shape {array.shape}"
        )
    try:
        flat = array.numpy()
    except Exception:  # noqa: BLE001 - numpy raises many kinds on bytes it cannot read
        raise ExchangeError("the bytes of an array are not readable") from None
    return unpack(flat, specs)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(str(name)[:40] for name in names)) or "none"
