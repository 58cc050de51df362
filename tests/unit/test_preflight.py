"""The preflight: one line for each thing, whatever is wrong with the others."""
# ruff: noqa: F401, F811 - fixtures are imported by name

import itertools
import subprocess
import sys

import pytest

from client import preflight
from client.preflight import examine, in_range
from tests.loopback import HOST
from tests.preflights import (
    QUICK,
    images,
    kit,
    no_proxy,
    of,
    quick,
    served,
    site,
    warned,
    write,
    wrong,
)


def test_a_site_that_can_serve_has_nothing_to_do(site, kit, bundle):
    with served(site, kit) as port:
        address = f"{HOST}:{port}"
        write(site, address=address, base=bundle.folder, digest=bundle.digest)
        before = sorted(path for path in site.rglob("*"))
        found = of(examine(site))
        assert of(examine(site / "site.yaml")).keys() == found.keys()
    assert wrong(found) == set()
    assert warned(found) <= {"masks", "release gate"}  # twelve images open none
    assert set(found) > QUICK | {"ledger", "audit log", "data", "disk", "GPU", "memory"}
    assert bundle.digest[:16] in found["base bundle"].told
    assert f"the server is {HOST}" in found["TLS"].told
    # looking has left nothing but the memory of what was looked at
    kept = site / "inspected.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert sorted(path for path in site.rglob("*") if path != kept) == before


def test_an_empty_folder_gives_every_line_and_no_traceback(tmp_path):
    found = of(examine(tmp_path))
    whole = {step.name for step in preflight._STEPS}
    assert set(found) == whole
    fine = {"ledger", "audit log", "approvals", "node", "folder", "versions"}
    assert wrong(found) == whole - fine | {"ledger"}
    assert not any("unforeseen" in finding.told for finding in found.values())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_told(tmp_path):
    found = of(examine(tmp_path / "nowhere"))
    assert "there is no folder" in found["folder"].told
    assert not (tmp_path / "nowhere").exists()


def test_start_waits_for_no_data_base_or_disk(site, kit):
    with served(site, kit):
        found = quick(site)
    assert set(found) == QUICK
    assert wrong(found) == set()


def test_an_examination_that_fails_in_an_unforeseen_way_is_a_line(site, monkeypatch):
    def broken(place):
        raise ZeroDivisionError("a fault\nof ours")

    steps = [
        step._replace(ask=broken) if step.name == "policy" else step
        for step in preflight._STEPS
    ]
    monkeypatch.setattr(preflight, "_STEPS", steps)
    found = quick(site)
    assert not found["policy"].ok
    assert found["policy"].told == "unforeseen: ZeroDivisionError: a fault of ours"
    assert found["node key"].ok


def test_looking_quickly_imports_no_model_code():
    code = (
        "import sys; from client.preflight import examine; from pathlib import Path; "
        "examine(Path('nowhere'), quick=True); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "fewer than 10"),
        (9, "fewer than 10"),
        (10, "10-19"),
        (19, "10-19"),
        (20, "20-49"),
        (49, "20-49"),
        (50, "50-99"),
        (100, "100-199"),
        (499, "200-499"),
        (500, "500-999"),
        (12_345, "10000-19999"),
    ],
)
def test_counts_are_told_in_ranges(count, told):
    assert in_range(count) == told


def test_ranges_follow_each_other_without_a_gap():
    told = [in_range(count) for count in range(3000)]
    bounds = [tuple(map(int, one.split("-"))) for one in dict.fromkeys(told[10:])]
    assert all(low == last + 1 for (_, last), (low, _) in itertools.pairwise(bounds))
    assert all(
        low <= count <= high
        for count in range(10, 3000)
        for low, high in [tuple(map(int, told[count].split("-")))]
    )
