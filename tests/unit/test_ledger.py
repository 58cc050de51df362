"""The ledger: books before training, once, and only what fits."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bookings import DELTA, UNITS, book, cost, entry
from vgmedgen.errors import BudgetError, ConfigError, PolicyError, StateError
from vgmedgen.privacy.accountant import spent
from vgmedgen.privacy.chain import hash_of
from vgmedgen.privacy.ledger import Ledger


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    (tmp_path / "site").mkdir()
    made = Ledger.create(tmp_path / "site", "site-a")
    made.cohort_for(UNITS, "patient")
    return made


def test_a_stage_is_on_disk_before_it_trains_and_epsilon_is_not(filled, tmp_path):
    rows = Ledger.open(tmp_path / "site", "site-a").rows()
    kinds = ["open", "cohort", "stage", "reply", "stage", "reply", "stage"]
    assert [row.kind for row in rows] == kinds
    assert rows[2].facts["mechanisms"] == [[5.0, 0.25, 20]]
    assert "epsilon" not in filled.to_json()
    assert filled.spent(delta=DELTA) == spent(cost(60), DELTA)


def test_rows_can_be_checked_and_added_up_without_this_project(filled):
    rows = [json.loads(line) for line in filled.to_json().splitlines()]
    before = "0" * 64
    for row in rows:
        assert row["previous"] == before
        own = (row["number"], row["kind"], row["facts"], row["time"])
        before = row["hash"]
        assert before == hash_of(row["previous"], *own)
    steps = [row["facts"]["mechanisms"][0][2] for row in rows if row["kind"] == "stage"]
    assert sum(steps) == 60


def test_the_same_round_again_is_the_same_booking_and_tells_its_reply(filled):
    count = len(filled.rows())
    first, third = book(filled, entry(1)), book(filled, entry(3))
    assert (first.number, first.replied) == (3, "outcome-1")
    assert (third.number, third.replied) == (7, None)
    # what fitted once is paid for: a lower limit cannot take it back
    assert book(filled, entry(1), limit=0.001) == first
    assert len(filled.rows()) == count


@pytest.mark.parametrize(
    "changes",
    [
        {"order": "other"},
        {"plan": "other"},
        {"mechanisms": cost(21)},
        {"mechanisms": None},
        {"clips": (0.02,)},
        {"draws": 1},
    ],
)
def test_a_booked_round_with_other_facts_is_refused(filled, changes):
    count = len(filled.rows())
    with pytest.raises(BudgetError, match=f"another {next(iter(changes))}"):
        book(filled, entry(2, **changes))
    assert len(filled.rows()) == count


def test_the_table_itself_refuses_a_second_row_for_a_round(filled):
    with filled.chain.writing() as (db, rows), pytest.raises(sqlite3.IntegrityError):
        filled.chain.append(db, rows, "stage", entry(1, order="x").facts)


def test_a_reply_is_booked_once(filled):
    booking = book(filled, entry(1))
    filled.reply(booking, "outcome-1")
    assert len(filled.rows()) == 7
    with pytest.raises(StateError, match="answered with another outcome"):
        filled.reply(booking, "another")


def test_a_run_beyond_the_limit_is_refused_with_numbers_and_what_would_fit(ledger):
    book(ledger, entry(1))
    with pytest.raises(BudgetError) as refused:
        book(ledger, entry(2), limit=2.0, ahead=cost(100))
    told = str(refused.value)
    assert refused.value.code == "VG41"
    assert "\n" not in told
    for epsilon in (spent(c, DELTA).epsilon for c in (cost(120), cost(20), cost(140))):
        assert f"{int(epsilon * 100) / 100:g}" in told
    assert "patient-level, delta 1e-05, accountant PRV, all that this site" in told
    words = told.split("what would fit: ")[1].split()
    steps, factor = int(words[0]), float(words[words.index("times") - 1])
    assert spent([*cost(20), *cost(steps)], DELTA).epsilon <= 2.0
    assert spent([*cost(20), *cost(int(steps * 1.25) + 1)], DELTA).epsilon > 2.0
    assert spent([*cost(20), *cost(120, 5.0 * (factor + 0.01))], DELTA).epsilon <= 2.0
    assert spent([*cost(20), *cost(120, 4.5 * factor)], DELTA).epsilon > 2.0
    assert len(ledger.rows()) == 3


def test_nothing_fits_where_the_limit_is_spent(ledger):
    book(ledger, entry(1))
    with pytest.raises(BudgetError, match="what would fit: nothing;"):
        book(ledger, entry(2), limit=0.3)


def test_the_whole_run_must_fit_before_its_first_round(ledger):
    whole = spent(cost(60), DELTA).epsilon
    with pytest.raises(BudgetError):
        book(ledger, entry(1), limit=whole * 0.999, ahead=cost(40))
    for number in (1, 2, 3):
        ahead = cost(60 - 20 * number) if number < 3 else ()
        book(ledger, entry(number), limit=whole, ahead=ahead)
    assert ledger.spent(delta=DELTA).epsilon == whole


@pytest.mark.parametrize(
    ("one", "limit", "delta", "error", "told"),
    [
        (entry(), 0.0, DELTA, PolicyError, "set privacy.epsilon in site.yaml"),
        (entry(mechanisms=None), 8.0, DELTA, BudgetError, "trains without DP"),
        (entry(), 8.0, 1 / 40, PolicyError, "not below 1 / 40 units"),
        (entry(), float("nan"), DELTA, ConfigError, "privacy.epsilon"),
        (entry(), float("inf"), DELTA, ConfigError, "privacy.epsilon"),
        (entry(), -1.0, DELTA, ConfigError, "privacy.epsilon"),
        (entry(), 8.0, 0.0, ConfigError, "privacy.delta"),
        (entry(), 8.0, float("nan"), ConfigError, "privacy.delta"),
        (entry(cohort=2), 8.0, DELTA, StateError, "not the newest"),
    ],
)
def test_what_carries_no_claim_is_refused_and_not_booked(
    ledger, one, limit, delta, error, told
):
    with pytest.raises(error, match=told):
        book(ledger, one, limit=limit, delta=delta)
    assert len(ledger.rows()) == 2


def test_after_training_without_dp_no_claim_can_be_booked(ledger):
    book(ledger, entry(1, mechanisms=None), limit=0.0)
    with pytest.raises(BudgetError, match="trained without DP before"):
        book(ledger, entry(2))


def test_mixed_units_train_without_a_claim_only(tmp_path):
    ledger = Ledger.create(tmp_path, "site-b")
    ledger.cohort_for(UNITS, "mixed")
    with pytest.raises(PolicyError, match="mixes units"):
        book(ledger, entry())
    book(ledger, entry(mechanisms=None), limit=0.0)


@pytest.mark.parametrize("changes", [{"mechanisms": ()}, {"stage": "release"}])
def test_an_entry_without_meaning_is_refused(changes):
    with pytest.raises(ConfigError):
        entry(**changes)


def test_a_ledger_of_another_site_is_refused(filled, tmp_path):
    with pytest.raises(StateError, match="ledger of site 'site-a', not of 'site-b'"):
        Ledger.open(tmp_path / "site", "site-b")


def test_a_second_ledger_cannot_be_begun(filled, tmp_path):
    with pytest.raises(StateError, match="has a ledger already"):
        Ledger.create(tmp_path / "site", "site-a")
    filled.path.unlink()
    with pytest.raises(StateError, match="has a ledger already"):
        Ledger.create(tmp_path / "site", "site-a")
    with pytest.raises(StateError, match="there is no"):
        Ledger.at(tmp_path / "site", "site-a")


def test_no_ledger_is_begun_where_something_was_trained(tmp_path):
    (tmp_path / "runs" / "run-a" / "round-0001").mkdir(parents=True)
    with pytest.raises(StateError, match=r"round-0001 was trained"):
        Ledger.at(tmp_path, "site-a")
    assert not (tmp_path / "ledger.sqlite").exists()


def test_booking_needs_no_model_code():
    code = (
        "import sys; import vgmedgen.privacy.ledger; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'opacus')))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=root)
    assert done.returncode == 0
