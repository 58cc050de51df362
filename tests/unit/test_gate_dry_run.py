"""A dry run at the wall: what would leave is shown at the site, and none of it leaves."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flwr.supercore.task_identity import TaskIdentity

from tests.answered import ask, code, log_of
from tests.federation.toys import ToySite, asking, prepare, raw, toys
from vgmedgen.exchange.wire import Kind
from vgmedgen.site.config import Policy


@pytest.fixture(autouse=True)
def _server(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def launch(tmp_path):
    return prepare(tmp_path / "run", toys())


def dry(**rules):
    return ToySite("alpha", policy=Policy(dry_run=True, **rules))


def shown(site, number=1):
    path = site.folder / "dry-run" / "toy-1" / f"round-{number:04d}.json"
    return json.loads(path.read_text())


def test_a_dry_run_shows_what_would_leave_and_sends_a_code(launch):
    site = dry()
    reply = ask(site, asking(launch, Kind.TRAIN))
    assert code(reply) == "VG44"
    assert len(raw(reply)) < 400
    assert not site.orders
    assert len(site.rehearsed) == 1
    left = log_of(site)[-1]
    assert (left["decision"], left["why"], left["bytes"]) == ("dry-run", "dry-run", 0)
    told, twin = shown(site), ask(ToySite("alpha"), asking(launch, Kind.TRAIN))
    records = told["records"]
    assert set(records) == set(twin.content)
    assert records["origin"] == dict(twin.content["origin"])
    assert records["numbers"] == dict(twin.content["numbers"])
    assert set(records["update"]) == {"mapper"}
    flat = twin.content["update"]["mapper"].numpy()
    group = records["update"]["mapper"]
    assert group["bytes"] == flat.nbytes
    assert group["l2"] == pytest.approx(np.linalg.norm(flat.astype(float)))
    assert 0 < group["l2-of-change"] < group["l2"]
    assert [t["name"] for t in group["tensors"]] == ["anatomy.0.weight", "style.0.bias"]
    assert group["tensors"][0]["shape"] == [6, 4]
    assert group["tensors"][0]["bytes"] == 48
    assert told["bytes"] >= group["bytes"]


def test_a_dry_run_answers_a_hello_and_no_order(launch):
    site = dry()
    assert ask(site, asking(launch, Kind.HELLO)).has_content()
    for kind, number in (
        (Kind.TRAIN, 1),
        (Kind.EVALUATE, 1),
        (Kind.INSTALL, launch.config.federation.rounds),
    ):
        assert code(ask(site, asking(launch, kind, number))) == "VG44"
    assert len(site.rehearsed) == 1
    assert not site.releases


def test_the_very_same_order_is_shown_once(launch):
    site = dry()
    for _ in range(2):
        assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG44"
    assert len(site.rehearsed) == 1
    assert code(ask(site, asking(launch, Kind.TRAIN, seed=7))) == "VG45"
    assert len(site.rehearsed) == 1


def test_what_the_policy_forbids_is_not_even_shown(launch):
    site = dry(runs=["no-*"])
    assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG40"
    site.policy = Policy(dry_run=True, approval="required")
    assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG42"
    assert not site.rehearsed
    assert not (site.folder / "dry-run").exists()


def test_dry_runs_count_as_rounds_of_the_day(launch):
    site = dry(rounds_per_day=1)
    assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG44"
    assert code(ask(site, asking(launch, Kind.TRAIN, 2))) == "VG43"


def test_after_a_dry_run_the_round_trains_anew(launch):
    site = dry()
    assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG44"
    site.policy = Policy()
    assert ask(site, asking(launch, Kind.TRAIN)).has_content()
    assert len(site.orders) == 1


def test_a_dry_run_whose_answer_could_not_leave_tells_that_code(launch):
    class Wrong(ToySite):
        def rehearse(self, order):
            outcome = super().rehearse(order)
            return replace(outcome, state={})

    site = Wrong("alpha", policy=Policy(dry_run=True))
    assert code(ask(site, asking(launch, Kind.TRAIN))) == "VG30"
    assert not list((site.folder / "dry-run").rglob("*.json"))
