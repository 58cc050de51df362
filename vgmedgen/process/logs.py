"""Logs of long-running processes: for people, or one JSON object per line.

An exception's text may name a file or a patient. It goes into a file that only the
owner reads; what a log collector gets is the line without it.
"""

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

OURS = ("vgmedgen", "server", "client", "simulations")
CHILD = "%(levelname)s %(name)s: %(message)s"  # from a child to the one that keeps it
MOST_BYTES = 10 * 2**20  # of a file of details, of which four are kept
PRIVATE = 0o077  # umask: whatever a node or a server writes is its own user's
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """`text` without what could end a line or steer a terminal.

    Much of what is logged was chosen by the other side: the name of a round, a path.
    """
    return _CONTROL.sub(" ", text)


class _OneLine(logging.Formatter):
    """A record in one line; a traceback, where it is told, stands below."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        record.message = one_line(record.message)
        return super().formatMessage(record)


class _NoText(_OneLine):
    """A record without the text of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        plain = logging.makeLogRecord({**record.__dict__, "exc_info": None})
        plain.exc_text = plain.stack_info = None
        return super().format(plain)


class _People(logging.Formatter):
    """`2026-11-21 09:31:04 node  joined`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).astimezone()
        level = record.levelname.lower()
        mark = "" if record.levelno < logging.WARNING else f"{level}: "
        text = one_line(record.getMessage())
        return f"{at:%Y-%m-%d %H:%M:%S} {source_of(record):<9} {mark}{text}"


class _Json(logging.Formatter):
    """`{"at": …, "level": …, "source": …, "message": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        return json.dumps(
            {
                "at": at.isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(),
                "source": source_of(record),
                "message": one_line(record.getMessage()),
            }
        )


def source_of(record: logging.LogRecord) -> str:
    """What a line is from: the child that said it, else the part of the program."""
    return str(getattr(record, "source", record.name.rpartition(".")[2]))


def keeper(*, as_json: bool, stream: TextIO | None = None) -> None:
    """Set up the log of a process that keeps others.

    Args:
        as_json: one JSON object per line; else for people.
        stream: standard error by default.
    """
    os.umask(PRIVATE)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if as_json else _People())
    _replace(handler)


def child(details: Path | None = None) -> None:
    """Set up the log of a kept process.

    Args:
        details: file for all that a line leaves out, only readable by its owner; with
            it, the line is for log collectors and carries no text of an exception.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((_NoText if details else _OneLine)(CHILD))
    _replace(handler)
    if details is None:
        return
    details.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    details.touch(mode=0o600)
    full = RotatingFileHandler(
        details, maxBytes=MOST_BYTES, backupCount=3, encoding="utf-8"
    )
    full.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    full.setLevel(logging.INFO)  # not every poll of a library's
    logging.getLogger().addHandler(full)


def _replace(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for held in list(root.handlers):
        root.removeHandler(held)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for ours in OURS:
        logging.getLogger(ours).setLevel(logging.INFO)
