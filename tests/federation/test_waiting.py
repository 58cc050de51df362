"""Whom a run waits for before its rounds, and until when."""

import threading
import time
from datetime import UTC, datetime

import pytest

from client.approvals import Approvals
from server.registry import Registry
from tests.federation.toys import ToySite, client_of, config, play, prepare, toys
from vgmedgen.site.config import Policy

pytestmark = pytest.mark.simulation

LONG = 900.0  # nothing below may take as long


def careful():
    """A site whose officer has to approve every run."""
    return ToySite("gamma", policy=Policy(approval="required"))


def played(tmp_path, sites, wait_s):
    asked = config(wait_s=wait_s, generate_rounds=1, evaluate=False)
    began = time.monotonic()
    play(prepare(tmp_path, sites, asked), client_of(sites), sites)
    return Registry(tmp_path).rounds(), time.monotonic() - began


def when_it_asks(site, decide):
    """Decide about the run as soon as it has asked."""
    approvals = Approvals(site.folder)

    def look():
        while not approvals.of("toy-1").asks:
            time.sleep(0.05)
        decide(approvals)

    threading.Thread(target=look, daemon=True).start()


def test_an_approval_that_does_not_come_is_waited_for_to_the_end_and_no_longer(
    tmp_path,
):
    records, took = played(tmp_path, [*toys(2), careful()], 10.0)
    assert took > 10
    assert [record["sites"] for record in records] == [["alpha", "beta"]] * 2


def test_a_run_begins_when_its_approval_comes(tmp_path, monkeypatch):
    monkeypatch.setattr("server.roster.FIRST_AGAIN_S", 0.2)
    site = careful()

    def approve(approvals):
        ask = approvals.of("toy-1").asks[-1]
        approvals.approve(ask, "A. Officer", datetime.now(UTC))

    when_it_asks(site, approve)
    records, took = played(tmp_path, [*toys(2), site], LONG)
    assert took < LONG
    assert [r["sites"] for r in records] == [["alpha", "beta", "gamma"]] * 2


def test_a_hospital_that_has_denied_the_run_is_not_waited_for(tmp_path):
    site = careful()
    Approvals(site.folder).deny("toy-1", "A. Officer", datetime.now(UTC))
    records, took = played(tmp_path, [*toys(2), site], LONG)
    assert took < LONG
    assert records[0]["sites"] == ["alpha", "beta"]


def test_a_site_that_refuses_for_good_is_not_waited_for(tmp_path):
    stranger = ToySite("gamma", base_digest="f" * 64)
    records, took = played(tmp_path, [*toys(2), stranger], LONG)
    assert took < LONG
    assert records[0]["sites"] == ["alpha", "beta"]
