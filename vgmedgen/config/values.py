"""Words as values of the type that a key declares, and nothing that nobody typed.

A whole number is decimal and has no leading zero, since some would read `010` as 8. Text
is what was typed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from vgmedgen.config.yamlfile import Text, parse_yaml
from vgmedgen.errors import ConfigError

_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TRUTHS = {"true": True, "yes": True, "on": True}
_TRUTHS |= {"false": False, "no": False, "off": False}
_LONGEST = 60  # signs of a value that a refusal quotes
_MOST_DIGITS = 30
_WORDS = {
    bool: "true or false",
    int: "a whole number, without leading zeros or signs between its digits",
    float: "a number such as 0.5 or 1e-5",
}


def typed(kind: Any, value: Any, key: str = "") -> Any:  # noqa: ANN401
    """What a value as it was read is, as the type that its key declares.

    Args:
        kind: a type as in a dataclass: str, int, float, bool, a dataclass, a list or
            tuple of one, or one of these or None.
        value: from `read_yaml`; what is no `Text`, list or dict passes as it is.
        key: what refusals call it.

    Raises:
        ConfigError: if it is none of that type, with what was typed and what would do.
    """
    options = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        if value is None or (isinstance(value, Text) and value.nothing):
            return None
        (kind,) = (option for option in options if option is not NoneType)
        return typed(kind, value, key)
    if get_origin(kind) in (list, tuple):
        if isinstance(value, Text | dict):
            raise ConfigError(
                f"'{key}'{_line(value)} takes a list, such as [{_shown(value)}]"
            )
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [
                typed(options[0], item, f"{key}[{n}]") for n, item in enumerate(value)
            ]
        return value
    if is_dataclass(kind):
        return _section(kind, value, key)
    if isinstance(value, list | dict) and kind in (str, int, float, bool):
        what = "list" if isinstance(value, list) else "map of keys and values"
        raise ConfigError(
            f"'{key}' takes one value, and what stands there is a {what} in YAML; put "
            "text in quotes"
        )
    return _scalar(kind, value, key) if isinstance(value, Text) else value


def whole(value: object) -> int | None:
    """The whole number that a word is, or None."""
    if isinstance(value, Text) and value.plain and len(value) <= _MOST_DIGITS:
        return int(value) if _WHOLE.fullmatch(value) else None
    return None


def number(value: object) -> float | None:
    """The number that a word is, or None."""
    if isinstance(value, Text) and value.plain and _NUMBER.fullmatch(value):
        return float(value)
    return None


def truth(value: object) -> bool | None:
    """The truth value that a word is, or None."""
    if isinstance(value, Text) and value.plain:
        return _TRUTHS.get(value.lower())
    return None


def plain(value: Any) -> Any:  # noqa: ANN401
    """The same without `Text`: words as str, nothing as None."""
    if isinstance(value, Mapping):
        return {str(name): plain(below) for name, below in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Text):
        return None if value.nothing else str(value)
    return value


def override(schema: type, word: str) -> dict[str, Any]:
    """The layer that one `key=value` of a command line is.

    What a key takes as text is the text behind the first equals sign, whatever it is;
    only the value of a list or a section is read as YAML.

    Raises:
        ConfigError: if the value is none of its key's type.
    """
    key, _, text = word.partition("=")
    kind = kind_of(schema, key)
    value: Any = Text(text, line=0)
    if kind is str:
        value = Text(text, plain=False, line=0)
    elif kind not in (int, float, bool):  # also of a key that there is not
        value = parse_yaml(text, f"the value of '{key}'")
    found: dict[str, Any] = {}
    at = found
    *above, last = key.split(".")
    for name in above:
        at = at.setdefault(name, {})
    at[last] = value
    return found


def kind_of(schema: type, key: str) -> Any:  # noqa: ANN401
    """The type that a dotted key declares; None if there is no such key."""
    kind: Any = schema
    for name in key.split("."):
        kind = get_type_hints(kind).get(name) if is_dataclass(kind) else None
    return kind


def _section(kind: Any, value: Any, key: str) -> Any:  # noqa: ANN401
    if isinstance(value, list) or (isinstance(value, Text) and not value.nothing):
        raise ConfigError(f"'{key}'{_line(value)} takes keys and values of its own")
    if not isinstance(value, Mapping):
        return plain(value)
    hints = {entry.name: get_type_hints(kind)[entry.name] for entry in fields(kind)}
    prefix = f"{key}." if key else ""
    return {
        name: typed(hints[name], below, f"{prefix}{name}")
        if name in hints
        else plain(below)
        for name, below in value.items()
    }


def _scalar(kind: Any, value: Text, key: str) -> Any:  # noqa: ANN401
    if kind is str:
        return _text(value, key)
    bare = Text(value)  # quotes around a number change nothing where one is declared
    found = {int: whole, float: number, bool: truth}[kind](bare)
    if found is None:
        raise ConfigError(
            f"'{key}'{_line(value)} must be {_WORDS[kind]}, got '{value[:_LONGEST]}'"
        )
    return found


def _text(value: Text, key: str) -> str:
    if value.nothing:
        raise ConfigError(
            f"'{key}'{_line(value)} is '{value}', which is no value in YAML; put it in "
            'quotes if it is text, and write "" for none'
        )
    if "${" in value or value == "???":
        raise ConfigError(
            f"'{key}'{_line(value)} holds '{value[:_LONGEST]}', which the configuration "
            "would work out; it may hold plain text only"
        )
    return str(value)


def _line(value: object) -> str:
    if isinstance(value, Text) and value.line:
        return f" (line {value.line})"
    return ""


def _shown(value: object) -> str:
    return value[:_LONGEST] if isinstance(value, str) else "first, second"
