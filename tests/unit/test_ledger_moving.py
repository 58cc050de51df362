"""A ledger moves to another machine, and never are there two that book."""

import shutil

import pytest

from tests.bookings import DELTA, UNITS, book, entry
from vgmedgen.errors import PolicyError, StateError
from vgmedgen.privacy import chain as chain_module
from vgmedgen.privacy.ledger import Ledger


def test_an_export_leaves_a_tombstone_and_is_adopted_once(filled, tmp_path):
    before, out = filled.spent(delta=DELTA), tmp_path / "moved.sqlite"
    filled.export(out)
    for refused in (
        lambda: book(filled, entry(4)),
        lambda: filled.cohort_for({"x": ["y"]}, "patient") and None,
        lambda: filled.open_cohort({"x": ["y"]}, "patient"),
        lambda: filled.reply(book(filled, entry(3)), "x"),
        lambda: Ledger.open(tmp_path / "site", "site-a"),
    ):
        with pytest.raises((StateError, PolicyError)):
            refused()
    assert Ledger.read(tmp_path / "site", "site-a").rows()[-1].kind == "moved"
    (tmp_path / "new").mkdir()
    with pytest.raises(StateError, match="not of 'site-b'"):
        Ledger.adopt(out, tmp_path / "new", "site-b")
    moved = Ledger.adopt(out, tmp_path / "new", "site-a")
    assert moved.spent(delta=DELTA) == before
    assert book(moved, entry(1)).replied == "outcome-1"
    assert moved.cohort_for(UNITS, "patient") == 1
    book(moved, entry(4))
    (tmp_path / "newer").mkdir()
    with pytest.raises(StateError, match="adopted by another folder"):
        Ledger.adopt(out, tmp_path / "newer", "site-a")
    with pytest.raises(StateError, match="has a ledger already"):
        Ledger.adopt(out, tmp_path / "new", "site-a")


def test_an_export_that_a_crash_interrupted_can_be_repeated(
    filled, tmp_path, monkeypatch
):
    out = tmp_path / "moved.sqlite"

    def dies(chain: chain_module.Chain, *_: object) -> None:
        if chain.head is not None:
            raise KeyboardInterrupt

    with monkeypatch.context() as crash:
        crash.setattr(chain_module.Chain, "copy", dies)
        with pytest.raises(KeyboardInterrupt):
            filled.export(out)
    again = Ledger.read(tmp_path / "site", "site-a")
    with pytest.raises(StateError, match="repeat the export to the same place"):
        again.export(tmp_path / "elsewhere.sqlite")
    again.export(out)
    again.export(out)
    (tmp_path / "new").mkdir()
    with monkeypatch.context() as crash:
        crash.setattr(chain_module.Chain, "advance", dies)
        with pytest.raises(KeyboardInterrupt):
            Ledger.adopt(out, tmp_path / "new", "site-a")
    adopted = Ledger.open(tmp_path / "new", "site-a")
    assert [row.kind for row in adopted.rows()][-2:] == ["moved", "adopted"]


def test_an_export_is_not_written_over_a_file_nor_while_a_stage_trains(
    filled, tmp_path
):
    out = tmp_path / "taken"
    out.write_text("x")
    with pytest.raises(StateError, match="taken exists"):
        filled.export(out)
    with filled.working(), pytest.raises(StateError, match="in use"):
        filled.export(tmp_path / "free")
    assert book(filled, entry(4)).number == 8


def test_a_copy_that_is_no_export_is_not_adopted(filled, tmp_path):
    shutil.copy(filled.path, tmp_path / "copy.sqlite")
    (tmp_path / "new").mkdir()
    with pytest.raises(StateError, match="not a whole export"):
        Ledger.adopt(tmp_path / "copy.sqlite", tmp_path / "new", "site-a")
