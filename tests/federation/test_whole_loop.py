"""The product's spine as a user starts it: one command, three hospitals, one report."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import MICRO
from vgmedgen.base import Bundle
from vgmedgen.release.verify import digest, verify

pytestmark = pytest.mark.simulation

COMMAND = (sys.executable, "-c", "from simulations.cli import main; main()")


def start(run: Path, *more: str) -> subprocess.Popen[str]:
    """`vgmedgen-simulate` in a process of its own, as a user starts it."""
    return subprocess.Popen(
        [*COMMAND, *MICRO, f"run.dir={run}", "run.threads=1", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def whole(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory):
    """An uninterrupted run and what it printed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    return run, finish(start(run))


def test_the_run_ends_by_naming_release_images_and_report(whole):
    run, out = whole
    named = [Path(line.split()[1]) for line in out.splitlines()]
    assert named[0] == run / "release"
    assert [path.parent.name for path in named[1:-1]] == [
        "hospital-a",
        "hospital-b",
        "hospital-c",
    ]
    assert named[-1] == run / "report.html"
    assert all(path.exists() for path in named)


def test_every_site_installed_the_release_that_the_server_published(whole):
    run, _ = whole
    published = digest(verify(run / "release"))
    for site in sorted((run / "sites").glob("hospital-*")):
        (installed,) = site.glob("releases/*/release")
        assert digest(verify(installed)) == published
        with (site / "synthetic" / "images.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == 2
        assert {row["model"] for row in rows} == {published}
        assert {row["cleared"] for row in rows} == {"no"}


def test_the_report_holds_what_it_is_judged_by(whole):
    run, _ = whole
    report = json.loads((run / "report.json").read_text())
    for table in ("heldout_denoising_loss", "caption_gap", "caption_gap_spread"):
        assert set(report[table]) == {"hospital-a", "hospital-b", "hospital-c"}
        assert all({"base", "federated"} <= set(row) for row in report[table].values())
    assert [entry["round"] for entry in report["alignment"]["rounds"]] == [1, 2]
    assert len(report["rounds"]) == 4
    assert all(entry["counted"] for entry in report["rounds"])


def test_a_run_killed_between_rounds_ends_with_the_same_release(whole, tmp_path):
    run, _ = whole
    killed = tmp_path / "killed"
    process = start(killed)
    waited = time.monotonic() + 120
    while not (killed / "rounds" / "0002.json").is_file():
        assert time.monotonic() < waited
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "report.json").exists()
    finish(start(killed))
    assert digest(verify(killed / "release")) == digest(verify(run / "release"))
    assert (killed / "report.json").is_file()


def test_a_folder_of_another_run_is_refused_in_one_line(whole):
    run, _ = whole
    process = start(run, "seed=5")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.strip().splitlines()[-1].endswith("[VG10]")
    assert "another configuration" in err
