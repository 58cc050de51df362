"""Read YAML without guesses: what stands in a file stays the text that was typed.

YAML 1.1 makes numbers, truth values and nothing of plain words: `0012` becomes 10, `no`
becomes false, `12:30` becomes 750. Here every word stays text, and whoever reads a key
says what type it has (`vgmedgen.config.values`). What YAML itself would take from a text,
such as all behind ` #`, is refused with the advice to quote it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    MappingNode,
    Node,
    SafeLoader,
    ScalarEvent,
    ScalarNode,
    SequenceNode,
    YAMLError,
)

from vgmedgen.errors import ConfigError

MOST_BYTES = 2**20  # of a YAML file
MOST_DEPTH = 20  # of maps and lists in each other; ours are 5 deep

_STR = "tag:yaml.org,2002:str"
_CUT = re.compile(
    r"[ \t]+#[^\s#]"
)  # behind a plain word: no comment as people write one
_CODES = (("utf-16", (b"\xff\xfe", b"\xfe\xff")), ("utf-8-sig", (b"\xef\xbb\xbf",)))


class Text(str):
    """A word as it was typed.

    Attributes:
        plain: whether it stood without quotes, so that it may be a number or nothing.
        line: where it began, from 1; 0 where it stood in no file.
    """

    plain: bool
    line: int

    def __new__(cls, text: str, *, plain: bool = True, line: int = 1) -> "Text":
        """Keep the text with where and how it stood."""
        made = super().__new__(cls, text)
        made.plain, made.line = plain, line
        return made

    @property
    def nothing(self) -> bool:
        """Whether it is what YAML writes for no value."""
        return self.plain and self in ("", "~", "null", "Null", "NULL")


def read_yaml(path: Path) -> Any:  # noqa: ANN401
    """What a YAML file holds: dicts, lists, and `Text` in them; None if it is empty.

    Raises:
        ConfigError: if it cannot be read, is no YAML, too large, too deep, or holds what
            YAML would not leave as it was typed.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror or error}; check the path and who "
            "may read it"
        ) from None
    if len(content) > MOST_BYTES:
        raise ConfigError(
            f"{path} has more than {MOST_BYTES} bytes, which is the limit"
        )
    begins = (code for code, marks in _CODES if content.startswith(marks))
    try:
        text = content.decode(next(begins, "utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path} line {line} is not UTF-8 text; save the file as UTF-8"
        ) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:  # noqa: ANN401
    """What a text in YAML holds; see `read_yaml`.

    Args:
        text: of a file, or of an override's value.
        where: what refusals call it.

    Raises:
        ConfigError: as `read_yaml`.
    """
    try:
        _check_events(text, where)
        node = yaml.compose(text, Loader=SafeLoader)
    except (YAMLError, ValueError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(
            f"{where} is not YAML: {told[:300]}; put text that holds signs of YAML in "
            "quotes"
        ) from None
    return None if node is None else _value(node, text, where)


def write_yaml(value: Mapping[str, Any]) -> str:
    """Plain values as YAML text, which `read_yaml` reads back as it was."""
    found: str = yaml.safe_dump(
        value,
        allow_unicode=True,
        width=10**6,
        sort_keys=False,
        default_flow_style=False,
    )
    return found


def _check_events(text: str, where: str) -> None:
    """Refuse depth and references before anything is made of them."""
    depth = 0
    for event in yaml.parse(text, Loader=SafeLoader):  # makes no objects
        depth += isinstance(event, CollectionStartEvent)
        depth -= isinstance(event, CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise ConfigError(
                f"{where} is nested more than {MOST_DEPTH} deep, which is the limit"
            )
        named = getattr(event, "anchor", None) or isinstance(event, AliasEvent)
        tag = getattr(event, "tag", None)
        if named or (tag and tag != _STR):
            line = event.start_mark.line + 1
            raise ConfigError(
                f"{where} line {line}: a word that begins with &, * or ! means something "
                "else in YAML, which is not read here; put it in quotes"
            )
        if isinstance(event, ScalarEvent):
            _check_scalar(event, text, where)


def _check_scalar(event: ScalarEvent, text: str, where: str) -> None:
    line = event.start_mark.line + 1
    if event.style is None:
        if event.start_mark.line != event.end_mark.line:
            raise ConfigError(
                f"{where} line {line}: the text goes on in the next line, where YAML "
                "would join it by a blank; put it in quotes, or indent the next line as "
                "a key of its own"
            )
        if _CUT.match(text, event.end_mark.index):
            raise ConfigError(
                f"{where} line {line}: YAML takes what stands behind ' #' from the text; "
                "put it in quotes, or a blank behind # if it is a comment"
            )
    elif event.style == '"' and not event.value.isprintable():
        raise ConfigError(
            f"{where} line {line}: a backslash in double quotes makes a sign that cannot "
            "be printed; put the text in single quotes"
        )


def _value(node: Node, text: str, where: str) -> Any:  # noqa: ANN401
    if isinstance(node, ScalarNode):
        tagged = text.startswith("!", node.start_mark.index)  # !!str: text anyhow
        plain = node.style is None and not tagged
        return Text(node.value, plain=plain, line=node.start_mark.line + 1)
    if isinstance(node, SequenceNode):
        return [_value(item, text, where) for item in node.value]
    found: dict[str, Any] = {}
    pairs = node.value if isinstance(node, MappingNode) else ()
    for key, value in pairs:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            raise ConfigError(
                f"{where} line {line}: a key is a list or a map; put it in quotes"
            )
        if key.value in found:
            raise ConfigError(
                f"{where} line {line}: the key '{key.value[:60]}' stands twice; remove "
                "one of them"
            )
        found[key.value] = _value(value, text, where)
    return found
