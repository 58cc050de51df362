"""Ledger, turns and audit log agree on what was trained, or nothing trains."""

import shutil

import pytest
from flwr.supercore.task_identity import TaskIdentity

import client.app
from client import history
from client.runfiles import AUDIT
from tests.federation.toys import ToySite, asking, config, prepare, toys
from vgmedgen.errors import StateError
from vgmedgen.exchange.wire import Kind


@pytest.fixture
def launch(tmp_path, monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    return prepare(tmp_path / "run", toys(), config(generate_rounds=4))


@pytest.fixture
def trained(launch):
    """A site that answered two rounds."""
    site = ToySite("alpha")
    for number in (1, 2):
        assert ask(site, asking(launch, Kind.TRAIN, number)).has_content()
    return site


def ask(site, message):
    return client.app.build(lambda context: site)(message, None)


def no_turns(folder):
    shutil.rmtree(folder / "turns")


def no_audit(folder):
    (folder / AUDIT).unlink()
    (folder / AUDIT).with_suffix(".head").unlink()


@pytest.mark.parametrize("gone", [no_turns, no_audit, lambda folder: None])
@pytest.mark.parametrize("kept", [1, 0])
def test_a_ledger_that_lacks_an_answered_round_trains_nothing(
    trained, launch, gone, kept
):
    del trained.orders[kept:]
    gone(trained.folder)
    reply = ask(trained, asking(launch, Kind.TRAIN, 3))
    assert reply.error.reason == "VG55"
    assert len(trained.orders) == kept


def test_records_that_agree_let_the_next_round_in(trained, launch):
    assert ask(trained, asking(launch, Kind.TRAIN, 3)).has_content()
    no_turns(trained.folder)
    assert ask(trained, asking(launch, Kind.TRAIN, 4)).has_content()


def test_what_was_refused_or_only_shown_was_not_answered(launch):
    from vgmedgen.site.config import Policy

    site = ToySite("alpha", policy=Policy(dry_run=True))
    assert ask(site, asking(launch, Kind.TRAIN)).has_error()
    assert ask(site, asking(launch, Kind.HELLO)).has_content()
    assert history.answered(site.folder) == {}


def test_the_refusal_names_round_file_and_way_out(trained):
    with pytest.raises(StateError) as caught:
        history.check(trained.folder, {("toy-1", 1)})
    told = str(caught.value)
    assert "round 2 of run toy-1" in told
    assert "audit.jsonl says" in told
    assert "put the latest ledger.sqlite and ledger.head back" in told
    assert "\n" not in told
    no_audit(trained.folder)
    with pytest.raises(StateError, match=r"as turns/toy-1\.json says"):
        history.check(trained.folder, {("toy-1", 1)})
