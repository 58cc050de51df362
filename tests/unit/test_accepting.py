"""`run` asks before it releases what its last rounds did not make."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from server import accepting, cli, launching, place, runs
from server.cli import app
from tests.unit import status_example as example
from vgmedgen.config.load import load_run
from vgmedgen.errors import StateError, TooFewSitesError
from vgmedgen.trust.journal import Journal

SITES = ["hospital-a", "hospital-b"]


@pytest.fixture
def kits(tmp_path):
    return example.provisioned(tmp_path)


def played(kits, counted, **facts):
    """A run of five rounds, each of which counted or did not."""
    rounds = [
        replace(record, counted=good)
        for record, good in zip(example.records(SITES, 5), counted, strict=True)
    ]
    asked = {"state": runs.FAILED, "code": "VG56", "why": "did not count"}
    return example.prepared(kits, "demo-1", rounds=rounds, **(asked | facts))


def test_only_rounds_at_the_end_are_asked_about(kits):
    assert accepting.pending(played(kits, [True, False, True, False, True])) == ""
    folder = played(kits, [True, True, True, True, False])
    assert accepting.pending(folder).startswith(
        "the last round did not count (round 5:"
    )
    accepting.accept(folder)
    assert accepting.pending(folder) == ""
    with pytest.raises(StateError, match="nothing to be released anyway"):
        accepting.accept(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"after": null}'])
def test_a_damaged_word_is_none(kits, content):
    folder = played(kits, [True, True, True, True, False])
    (folder / accepting.FILE).write_text(content)
    assert accepting.pending(folder)


def test_nothing_is_asked_about_a_run_that_is_not_over_or_cannot_be_read(kits):
    folder = played(kits, [True, True, True, True, False])
    (folder / "rounds" / "0005.json").unlink()
    assert accepting.pending(folder) == ""
    (folder / "rounds" / "0004.json").write_text("{")
    assert accepting.pending(folder) == ""


@pytest.fixture
def following(kits, monkeypatch):
    """A run that fails for its last round, and is finished once it may be released."""
    folder = played(kits, [True, True, True, True, False])

    def follow(kits, run):
        if accepting.pending(folder):
            yield "run demo-1: failed"
            raise TooFewSitesError("run demo-1 failed: --release-anyway")
        yield "run demo-1: finished"

    monkeypatch.setattr(launching, "launch", lambda *_, **__: "demo-1")
    monkeypatch.setattr(launching, "follow", follow)
    return folder


def run(kits, *words, entered=None):
    return CliRunner().invoke(
        app, ["run", "--kits", str(kits.folder), *words], input=entered
    )


def test_without_a_person_the_run_stays_refused(kits, following):
    done = run(kits)
    assert isinstance(done.exception, TooFewSitesError)
    assert accepting.pending(following)


@pytest.mark.parametrize(("entered", "released"), [("y\n", True), ("n\n", False)])
def test_a_person_is_asked(kits, following, monkeypatch, entered, released):
    monkeypatch.setattr(cli, "_somebody_is_there", lambda: True)
    done = run(kits, entered=entered)
    assert "the release would be what round 4 made" in done.output
    assert bool(accepting.pending(following)) is not released
    state = runs.read(following).state
    assert state == (runs.QUEUED if released else runs.FAILED)
    assert ("run demo-1: finished" in done.output) is released
    assert isinstance(done.exception, TooFewSitesError) is not released


def test_a_run_that_failed_for_another_reason_is_not_asked_about(kits, monkeypatch):
    played(kits, [True] * 5)

    def follow(*_):
        yield "run demo-1: failed"
        raise TooFewSitesError("1 of 2 sites are there")

    monkeypatch.setattr(launching, "launch", lambda *_, **__: "demo-1")
    monkeypatch.setattr(launching, "follow", follow)
    monkeypatch.setattr(cli, "_somebody_is_there", lambda: True)
    assert "1 of 2 sites" in str(run(kits).exception)


def test_the_flag_is_a_word_too_and_only_for_such_a_run(kits, monkeypatch):
    monkeypatch.setattr(place, "ports", lambda _: None)
    words = ["experiment=demo"]
    with pytest.raises(StateError, match="there is no run"):
        launching.launch(kits, words, release_anyway=True)
    folder = played(kits, [True, True, True, True, False])
    config = load_run(("experiment=demo",))
    monkeypatch.setattr(launching, "_config", lambda *_: config)
    launching.launch(kits, words, name="demo-1", release_anyway=True)
    assert runs.read(folder).state == runs.QUEUED
    assert json.loads((folder / accepting.FILE).read_text()) == {"after": 4}
    assert Journal(kits.state / place.AUDIT).entries()[-1]["event"] == "release"
