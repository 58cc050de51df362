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
from typer.testing import CliRunner

from simulations.cli import app
from simulations.run import claim, simulate
from tests.conftest import MICRO
from vgmedgen.base import Bundle
from vgmedgen.config.load import load_run
from vgmedgen.errors import ConfigError
from vgmedgen.release.verify import digest, verify

pytestmark = pytest.mark.simulation

STUDIES = ("study.local=true", "study.pooled=true", "study.alignment=true")
COMMAND = (sys.executable, "-c", "from simulations.cli import main; main()")


def start(run: Path) -> subprocess.Popen[str]:
    """`vgmedgen-simulate` in a process of its own, as a user starts it."""
    return subprocess.Popen(
        [*COMMAND, *MICRO, *STUDIES, f"run.dir={run}", "run.threads=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def whole(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory):
    """An uninterrupted run with every study, and what it printed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    result = CliRunner().invoke(
        app,
        [*MICRO, *STUDIES, f"run.dir={run}", "run.threads=1"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    return run, result.stdout


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
        assert {row["release"] for row in rows} == {published}
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
    assert set(report["gate"]) == set(report["images"])
    assert all("held-out images" in one["why"] for one in report["gate"].values())


def test_the_studies_say_how_strangers_and_pooled_data_do(whole):
    run, _ = whole
    report = json.loads((run / "report.json").read_text())
    for row in report["heldout_denoising_loss"].values():
        assert set(row) == {"base", "federated", "local", "pooled"}
    for trained_at, row in report["local_on_sites"].items():
        own = report["heldout_denoising_loss"][trained_at]["local"]
        assert row[trained_at] == pytest.approx(own, rel=1e-4)
    assert set(report["alignment"]["variants"]) == {
        "independent",
        "common_start",
        "anchor",
    }


def test_a_run_killed_between_rounds_ends_with_the_same_release(whole, tmp_path):
    run, _ = whole
    killed = tmp_path / "killed"
    process = start(killed)
    waited = time.monotonic() + 900
    while not (killed / "rounds" / "0002.json").is_file():
        assert time.monotonic() < waited
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "report.json").exists()
    again = start(killed)
    _, err = again.communicate(timeout=1800)
    assert again.returncode == 0, err
    assert digest(verify(killed / "release")) == digest(verify(run / "release"))
    assert (killed / "report.json").is_file()


def test_a_finished_run_started_again_trains_nothing_and_reports_the_same(
    whole, monkeypatch
):
    run, _ = whole
    before = json.loads((run / "report.json").read_text())

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("vgmedgen.training.rounds._align", forbidden)
    monkeypatch.setattr("vgmedgen.training.rounds._generate", forbidden)
    simulate(load_run([*MICRO, *STUDIES, f"run.dir={run}", "run.threads=1"]))
    after = json.loads((run / "report.json").read_text())
    for table in ("heldout_denoising_loss", "caption_gap", "alignment", "release"):
        assert after[table] == before[table]


def test_a_folder_of_another_run_is_refused(whole, tmp_path):
    run, _ = whole
    with pytest.raises(ConfigError, match="another configuration"):
        claim(load_run([*MICRO, f"run.dir={run}", "seed=5"]))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and no run"):
        claim(load_run([*MICRO, f"run.dir={tmp_path}"]))


def test_unnamed_runs_get_folders_of_their_own_once_they_are_finished(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = load_run(MICRO)
    first = claim(config)
    assert claim(config) == first  # unfinished: goes on
    (first / "report.json").write_text("{}")
    assert claim(config).name == f"{first.name}-2"
