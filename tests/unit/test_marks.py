"""How far a site's ledger has come: what is told of it, and that it does not go back."""

import re
import shutil
from itertools import pairwise
from types import SimpleNamespace

import pytest

from server import marks
from server.marks import Marks
from tests.bookings import UNITS, book, entry
from vgmedgen.errors import StateError
from vgmedgen.exchange.schema import WORDS
from vgmedgen.privacy.ledger import Ledger
from vgmedgen.privacy.mark import NOTHING, mark, went_back


@pytest.fixture
def ledger(tmp_path):
    (tmp_path / "site").mkdir()
    made = Ledger.create(tmp_path / "site", "site-a")
    made.cohort_for(UNITS, "patient")
    return made


def test_a_mark_grows_with_every_booking_and_with_nothing_else(ledger):
    told = [mark(ledger.rows())]
    assert told == [NOTHING] == [mark([])]
    for number in (1, 2, 3):
        cohort = ledger.open_cohort({**UNITS, "p": [f"i-{number}"]}, "patient")
        assert mark(ledger.rows()) == told[-1]
        booking = book(ledger, entry(number, cohort=cohort))
        told.append(mark(ledger.rows()))
        ledger.reply(booking, f"outcome-{number}")
        assert mark(ledger.rows()) == told[-1]
    assert len(set(told)) == len(told)
    assert all(re.fullmatch(WORDS["ledger"], one) for one in told)
    for before, now in pairwise(told):
        assert not went_back(before, now)
        assert went_back(now, before)


def test_two_ledgers_that_differ_in_their_patients_only_have_one_mark(tmp_path):
    (tmp_path / "a").mkdir()
    one = Ledger.create(tmp_path / "a", "site-a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # the same random id
    other = Ledger.open(tmp_path / "b", "site-a")
    for ledger, units in ((one, UNITS), (other, {**UNITS, "patient-0": ["another"]})):
        ledger.cohort_for(units, "patient")
        book(ledger, entry(1))
    assert one.rows()[-1].hash != other.rows()[-1].hash, "the head itself would tell"
    assert mark(one.rows()) == mark(other.rows())


def test_a_ledger_with_another_history_of_the_same_length_went_back():
    assert went_back("3-" + "a" * 32, "3-" + "b" * 32)
    assert not went_back("3-" + "a" * 32, "4-" + "b" * 32)


def test_the_coordinator_remembers_over_runs_and_refuses_what_goes_back(tmp_path):
    seen = Marks(tmp_path)
    for told in (NOTHING, "2-" + "a" * 32, "2-" + "a" * 32, "5-" + "b" * 32):
        seen.follow("a", told)
    seen.follow("b", "1-" + "c" * 32)
    for gone in ("2-" + "a" * 32, NOTHING, "5-" + "d" * 32):
        with pytest.raises(
            StateError, match="the ledger of a went back: 5 rounds"
        ) as e:
            Marks(tmp_path).follow("a", gone)
        assert "\n" not in str(e.value)
    Marks(tmp_path).follow("a", "5-" + "b" * 32)
    seen.path.write_text("[")
    with pytest.raises(StateError, match=r"ledgers\.json cannot be read"):
        seen.follow("a", "6-" + "e" * 32)


def test_a_simulation_remembers_nothing(tmp_path):
    folder = tmp_path / "runs" / "r"
    launch = SimpleNamespace(nodes={}, folder=folder)
    marks.follow(launch, {"site": "a", "ledger": "3-" + "a" * 32})
    assert not list(tmp_path.iterdir())
    launch.nodes = {"a": "key"}
    marks.follow(launch, {"site": "a"})  # a release was installed: no mark is told
    marks.follow(launch, {"site": "a", "ledger": "3-" + "a" * 32})
    with pytest.raises(StateError):
        marks.follow(launch, {"site": "a", "ledger": NOTHING})
