"""Cohorts: who is the same unit as before, and what they carry over."""

import math

import pytest

from vgmedgen.errors import BudgetError, ConfigError, DataError, PolicyError
from vgmedgen.privacy.accountant import Mechanism, spent
from vgmedgen.privacy.cohort import Members, exposures
from vgmedgen.privacy.ledger import Entry, Ledger

DELTA = 1e-5
COSTS = [Mechanism(noise=2.0, rate=0.25, steps=steps) for steps in (20, 40, 60, 80)]


def people(*names: str, prefix: str = "") -> dict[str, list[str]]:
    """Units with two images each, named after the person."""
    return {prefix + name: [f"{name}-1", f"{name}-2"] for name in names}


def train(
    ledger: Ledger, cohort: int, cost: Mechanism | None, limit: float = 50.0
) -> None:
    """Book one stage on the newest cohort, in a run of its own."""
    ledger.book(
        Entry(
            cohort=cohort,
            run=f"run-{cohort}",
            round=1,
            stage="generate",
            order="o",
            plan="p",
            base="b",
            mechanisms=cost and (cost,),
        ),
        limit=limit if cost else 0.0,
        delta=DELTA,
    )


def epsilon(*costs: Mechanism) -> float:
    return spent(costs, DELTA).epsilon


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger.create(tmp_path, "site-a")


def test_the_first_cohort_opens_itself_and_the_same_members_stay_in_it(ledger):
    assert ledger.cohort_for(people("a", "b"), "patient") == 1
    shuffled = {"b": ["b-2", "b-1"], "a": ["a-2", "a-1"]}
    assert ledger.cohort_for(shuffled, "patient") == 1
    assert [row.kind for row in ledger.rows()] == ["open", "cohort"]
    (cohort,) = ledger.cohorts()
    assert (cohort.units, cohort.images, cohort.opened) == (2, 4, "first")


@pytest.mark.parametrize(
    ("now", "kind", "told"),
    [
        (people("a", "b", "c", "d"), "patient", "2 units and 4 images added, 0 units"),
        (people("a"), "patient", "0 images added, 1 units and 2 images removed"),
        (people("a", "b"), "image", "no unit or image added or removed"),
        ({"a": ["a-1", "b-1"], "b": ["b-2", "a-2"]}, "patient", "moved between units"),
    ],
)
def test_changed_data_are_refused_with_what_changed_and_what_to_do(
    ledger, now, kind, told
):
    ledger.cohort_for(people("a", "b"), "patient")
    with pytest.raises(PolicyError, match="vgmedgen-client ledger cohort") as refused:
        ledger.cohort_for(now, kind)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(ledger.cohorts()) == 1
    assert ledger.open_cohort(now, kind) == 2
    assert ledger.cohort_for(now, kind) == 2


def test_opening_a_cohort_of_the_same_members_changes_nothing(ledger):
    ledger.cohort_for(people("a"), "patient")
    assert ledger.open_cohort(people("a"), "patient") == 1
    assert len(ledger.rows()) == 2


def test_new_units_have_spent_nothing_and_old_ones_keep_what_they_spent(ledger):
    train(ledger, ledger.cohort_for(people("a", "b"), "patient"), COSTS[0])
    fresh = ledger.open_cohort(people("c", "d"), "patient")
    assert ledger.worst_unit(delta=DELTA).epsilon == 0
    train(ledger, fresh, COSTS[1])
    assert ledger.worst_unit(delta=DELTA).epsilon == epsilon(COSTS[1])
    assert ledger.worst_unit(1, delta=DELTA).epsilon == epsilon(COSTS[0])
    ledger.open_cohort(people("b", "c", "e"), "patient")
    # b has spent 20 steps and c 40: the worse one counts, and nobody paid both
    assert ledger.worst_unit(delta=DELTA).epsilon == epsilon(COSTS[1])


def test_a_renamed_unit_keeps_its_history_through_its_images(ledger):
    train(ledger, ledger.cohort_for(people("a", "b"), "patient"), COSTS[2])
    renamed = {"new-a": ["a-2", "fresh"], "z": ["z-1"]}
    ledger.open_cohort(renamed, "patient")
    assert ledger.worst_unit(delta=DELTA).epsilon == epsilon(COSTS[2])


def test_a_history_passes_on_through_several_cohorts(ledger):
    train(ledger, ledger.cohort_for({"a": ["1"]}, "patient"), COSTS[0])
    train(ledger, ledger.open_cohort({"renamed": ["1", "2"]}, "patient"), COSTS[1])
    # nothing in common with the first cohort but through the second
    train(ledger, ledger.open_cohort({"again": ["2", "3"]}, "patient"), COSTS[2])
    ledger.open_cohort({"last": ["3"]}, "lesion")
    assert ledger.worst_unit(delta=DELTA).epsilon == epsilon(*COSTS[:3])


def test_a_unit_once_trained_without_dp_has_no_epsilon_any_more(ledger):
    train(ledger, ledger.cohort_for(people("a", "b"), "patient"), None)
    assert ledger.worst_unit(delta=DELTA).epsilon == math.inf
    ledger.open_cohort(people("b", "c"), "patient")
    assert ledger.worst_unit(delta=DELTA).epsilon == math.inf
    last = ledger.open_cohort(people("c", "d"), "patient")
    # c was beside b in the second cohort, which never trained
    assert ledger.worst_unit(delta=DELTA).epsilon == 0
    # but to say so outside would tell that c and d were not in the first one
    assert ledger.spent(delta=DELTA).epsilon == math.inf
    with pytest.raises(BudgetError, match="trained without DP before"):
        train(ledger, last, COSTS[0])


def test_what_is_told_outside_does_not_depend_on_who_was_in_which_cohort(tmp_path):
    """A site that has all new patients, and its twin with one old one among them."""
    told, refused, exact = [], [], []
    for name, now in (("new", people("c", "d")), ("old", people("c", "b"))):
        (tmp_path / name).mkdir()
        ledger = Ledger.create(tmp_path / name, "site-a")
        train(ledger, ledger.cohort_for(people("a", "b"), "patient"), COSTS[2])
        cohort = ledger.open_cohort(now, "patient")
        exact.append(ledger.worst_unit(delta=DELTA).epsilon)
        limit = epsilon(COSTS[2], COSTS[0]) * 0.999
        with pytest.raises(BudgetError) as caught:
            train(ledger, cohort, COSTS[0], limit=limit)
        refused.append(str(caught.value))
        train(ledger, cohort, COSTS[0], limit=limit * 1.002)
        told.append(ledger.spent(delta=DELTA))
    assert exact[0] != exact[1], "the hospital itself sees the difference"
    assert refused[0] == refused[1]
    assert told[0] == told[1]
    assert told[0].epsilon == epsilon(COSTS[2], COSTS[0])


def test_exposures_are_the_largest_sets_of_cohorts_only():
    held = {
        1: Members.of(people("a", "b"), "s"),
        2: Members.of(people("a", "b", "c"), "s"),
        3: Members.of(people("a", "c", "d"), "s"),
    }
    assert exposures(held, 3) == [frozenset({1, 2, 3})]
    assert exposures(held, 2) == [frozenset({1, 2, 3})]
    held[4] = Members.of(people("b", "d"), "s")
    assert exposures(held, 4) == [frozenset({1, 2, 4}), frozenset({3, 4})]


def test_names_and_images_are_salted_and_never_written_as_they_are(ledger, tmp_path):
    ledger.cohort_for(people("patient-seven"), "patient")
    content = (tmp_path / "ledger.sqlite").read_bytes()
    assert b"patient-seven" not in content
    assert Members.of(people("a"), "s").digest != Members.of(people("a"), "t").digest


@pytest.mark.parametrize("units", [{}, {"a": []}])
def test_a_cohort_without_units_or_images_is_refused(ledger, units):
    with pytest.raises(DataError):
        ledger.cohort_for(units, "patient")
    assert len(ledger.rows()) == 1


def test_an_unknown_kind_of_unit_is_refused(ledger):
    with pytest.raises(ConfigError, match="patient, lesion, image"):
        ledger.cohort_for(people("a"), "slide")
