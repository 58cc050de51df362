"""What is told of a run that waits, and of a site that is the coordinator's no longer."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from server import waiting
from server.membership import Membership
from server.waiting import FILE, Waiting
from tests.unit import status_example as example
from tests.unit.test_status import shown
from vgmedgen.config.run import FederationConfig


def made(sites, here=2):
    return Waiting.made(sites, here=here, fewest=2, left_s=3600)


def test_who_is_waited_for_and_what_happens_then_is_one_line():
    line = made({"c": "VG42", "b": "offline"}).line
    assert line.startswith("waits for b (offline), c (VG42: waiting for the hospital's")
    assert line.endswith("UTC, then it goes on with the 2 that are in")
    assert "b (online, has not answered yet)" in made({"b": "late"}).line
    few = made({}, here=1).line
    assert few.startswith("waits for 1 more of the 2 sites that a round needs; until")
    assert few.endswith("then it fails, and goes on when it is started again")


def test_the_time_is_when_it_ends():
    until = datetime.fromisoformat(made({"b": "offline"}).until)
    assert 3500 < (until - datetime.now(UTC)).total_seconds() < 3700


def test_what_is_kept_is_read_back_and_gone_when_it_is_over(tmp_path):
    told = made({"b": "offline"})
    waiting.keep(tmp_path, told)
    assert waiting.read(tmp_path) == told
    waiting.keep(tmp_path, None)
    waiting.keep(tmp_path, None)
    assert waiting.read(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        "{",
        "[]",
        {"until": "soon"},
        {"sites": ["a"]},
        {"sites": {"a": 1}},
        {"here": "two"},
        {"more": 1},
    ],
)
def test_a_damaged_file_is_no_wait(tmp_path, change):
    waiting.keep(tmp_path, made({"b": "offline"}))
    path = tmp_path / FILE
    told = json.loads(path.read_text())
    path.write_text(change if isinstance(change, str) else json.dumps(told | change))
    assert waiting.read(tmp_path) is None


def test_the_rule_names_its_numbers():
    told = waiting.rule(FederationConfig(wait_s=24 * 3600), 3)
    assert "each of its 3 sites has joined or refused, approvals included" in told
    assert "24 h 00 min" in told
    assert "later rounds wait for 2" in told


def test_status_and_page_say_whom_a_run_waits_for():
    from server import page

    found = example.three()
    line = made({"hospital-c": "VG42"}).line
    run = replace(found.runs[0], waits=line)
    assert line in " ".join(shown(replace(found, runs=(run,)), 400).split())
    assert '<p class="waits">waits for hospital-c' in page.fragment(
        replace(found, runs=(run,))
    )


def test_a_site_with_no_key_or_another_one_is_no_longer_of_a_run(tmp_path):
    kits = example.provisioned(tmp_path)
    folder = example.prepared(kits, "demo-1")
    from server import runs
    from server.launch import Launch

    membership = Membership(Launch.load(runs.launch_file(folder)))
    assert membership.removed() == frozenset()
    path = kits.home / "nodes.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"hospital-b": "00"}))
    assert membership.removed() == {"hospital-b"}
    for damaged in ("{", "[]"):
        path.write_text(damaged)
        assert membership.removed() == {"hospital-b"}
    path.write_text(json.dumps({"hospital-b": told["hospital-b"]}))
    assert membership.removed() == {"hospital-a"}
