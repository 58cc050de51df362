"""What the gate was measured to find and miss: one file, which the page shows whole."""

from dataclasses import replace

import pytest

from tests.altered import ALTERED
from tests.planted import KINDS
from vgmedgen.gate.measured import FILE, Measured, measured, publish
from vgmedgen.gate.measured_table import finds_and_misses
from vgmedgen.gate.release import VERSION

ONE = Measured(
    date="2026-01-02",
    version=VERSION,
    gate="ab" * 32,
    dataset="busi",
    px=64,
    asked=0.01,
    promised=0.0125,
    training=250,
    heldout=100,
    copies=20,
    found={"exact": 20, "quite another": 3},
    named=22,
    strangers=120,
    duplicates=19,
    flagged=3,
    scenes=1,
)


def test_a_new_measurement_replaces_that_of_its_set_and_keeps_the_others(tmp_path):
    path = tmp_path / "measured.json"
    large = replace(ONE, px=128)
    publish([large, ONE], path)
    publish([replace(ONE, flagged=5)], path)
    assert measured(path) == (replace(ONE, flagged=5), large)


def test_false_alarms_leave_out_what_shows_a_training_image():
    assert ONE.alarms.value == 0.02
    assert ONE.alarms.low < 0.01
    assert ONE.alarms.high > 0.05


def test_the_table_shows_every_kind_and_its_misses():
    other = replace(ONE, dataset="kvasir-seg", found={"exact": 19})
    told = finds_and_misses((ONE, other))
    for part in ("BUSI 64", "Kvasir-SEG 64", "Exact", "100", "95", "Quite another"):
        assert f">{part}<" in told, part
    assert ">15<" in told
    assert ">2 (0.2 to 7.0)<" in told
    assert "Measured 2026-01-02" in told


def test_without_a_measurement_nothing_is_told():
    assert finds_and_misses(()) == ""


@pytest.mark.parametrize("one", measured(), ids=lambda one: f"{one.dataset}-{one.px}")
def test_what_ships_was_measured_of_this_gate_with_every_kind(one):
    assert FILE.is_file()
    assert one.version == VERSION
    assert {*KINDS, *ALTERED} <= set(one.found)
    assert all(one.found[kind] >= 0.9 * one.copies for kind in KINDS)
