"""Logs of long-running processes: for people, or one JSON object per line.

An exception's text may name a file or a patient. It goes into a file that only the
owner reads; what a log collector gets is the line without it.
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

OURS = ("vgmedgen", "server", "client", "simulations")
CHILD = "%(levelname)s %(name)s: %(message)s"  # from a child to the one that keeps it


class _People(logging.Formatter):
    """`09:31:04 node  joined`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).astimezone()
        mark = (
            "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        )
        return (
            f"{at:%Y-%m-%d %H:%M:%S} {source_of(record):<9} {mark}{record.getMessage()}"
        )


class _Json(logging.Formatter):
    """`{"at": …, "level": …, "source": …, "message": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        return json.dumps(
            {
                "at": at.isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(),
                "source": source_of(record),
                "message": record.getMessage(),
            }
        )


class _NoText(logging.Formatter):
    """A record without the text of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        plain = logging.makeLogRecord({**record.__dict__, "exc_info": None})
        plain.exc_text = plain.stack_info = None
        return super().format(plain)


def source_of(record: logging.LogRecord) -> str:
    """What a line is from: the child that said it, else the part of the program."""
    return str(getattr(record, "source", record.name.rpartition(".")[2]))


PRIVATE = 0o077  # umask: whatever a node or a server writes is its own user's


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
    handler.setFormatter((_NoText if details else logging.Formatter)(CHILD))
    _replace(handler)
    if details is not None:
        details.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        details.touch(mode=0o600)
        full = logging.FileHandler(details)
        full.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        )
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
