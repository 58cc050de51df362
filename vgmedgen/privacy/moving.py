"""Moving a ledger to another machine, so that at no moment two of them book."""

import hashlib
from pathlib import Path

from vgmedgen.errors import StateError
from vgmedgen.privacy.chain import Chain
from vgmedgen.privacy.facts import alive, of_site


def take(chain: Chain, path: Path) -> None:
    """Leave a tombstone in `chain`, then write the whole of it to `path`.

    The tombstone comes first: a crash in between leaves no ledger that books, and the
    same export can be repeated. It also ends the export, so that one cut short is not
    taken for a whole one.

    Raises:
        StateError: if `path` is taken, or the ledger was exported elsewhere.
    """
    taken = StateError(f"{path} exists; choose another place for the export")
    to = _digest(path)
    with chain.writing() as (db, rows):
        if rows[-1].kind != "moved":
            if path.exists():
                raise taken
            chain.append(db, rows, "moved", {"to": to})
        elif rows[-1].facts["to"] != to:
            alive(rows, chain.path)
    if not path.exists():
        chain.copy(path)
    elif Chain(path, headless=True).read()[: len(rows)] != rows:
        raise taken


def bring(source: Chain, chain: Chain, site: str) -> None:
    """Install the export `source` as `chain`; an export can be adopted once.

    The export is marked first. After a crash in between, adopting it into the same
    folder again finishes the work.

    Raises:
        StateError: if the folder has a ledger, or the export is not whole, of another
            site, or adopted elsewhere.
    """
    folder, path = chain.path.parent, source.path
    if chain.begun:
        raise StateError(
            f"{folder} has a ledger already; adopt {path} into a folder that has none"
        )
    to = _digest(folder)
    with source.writing() as (db, rows):
        of_site(rows, site, path)
        last = rows[-1]
        if last.kind == "moved":
            source.append(db, rows, "adopted", {"to": to})
        elif last.kind != "adopted":
            raise StateError(
                f"{path} is not a whole export; write it with vgmedgen-client ledger "
                "export"
            )
        elif last.facts["to"] != to:
            raise StateError(
                f"{path} was adopted by another folder on {last.time}; two ledgers of one "
                "site would each know half of what was spent"
            )
    source.copy(chain.path)


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()
