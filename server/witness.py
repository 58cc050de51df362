"""The coordinator's audit log of a run: every message out and in, and what became of it."""

from collections.abc import Mapping
from pathlib import Path

from flwr.app import RecordDict

from vgmedgen.exchange.wire import Kind, fingerprint, size
from vgmedgen.trust.journal import Journal


class Witness:
    """Writes the log of one run; without a file it writes nothing, as in a simulation."""

    def __init__(self, path: Path | None, run: str) -> None:
        self._journal = Journal(path) if path else None
        self._run = run

    def sent(
        self, kind: Kind, number: int, sites: Mapping[str, int], content: RecordDict
    ) -> None:
        """A message went to every one of `sites`.

        Raises:
            StateError: if the log cannot be written; then nothing may be sent.
        """
        if self._journal is None:
            return
        digest, many = fingerprint(content), size(content)
        for site, node in sites.items():
            self._journal.add(
                "out",
                run=self._run,
                kind=str(kind),
                site=site,
                node=f"{node:x}",
                decision="sent",
                digest=digest,
                bytes=many,
                **_round(number),
            )

    def received(
        self, kind: Kind, number: int, site: str, content: RecordDict | None, code: str
    ) -> None:
        """A reply was accepted, or its site left out under a code.

        Raises:
            StateError: if the log cannot be written.
        """
        if self._journal is None:
            return
        facts: dict[str, str | int] = {}
        if content is not None:
            facts = {"digest": fingerprint(content), "bytes": size(content)}
        self._journal.add(
            "in",
            run=self._run,
            kind=str(kind),
            site=site,
            decision="left-out" if code else "accepted",
            code=code,
            **_round(number),
            **facts,
        )


def _round(number: int) -> dict[str, int]:
    return {"round": number} if number else {}
