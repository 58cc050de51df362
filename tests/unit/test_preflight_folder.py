"""What the preflight finds in a site's folder, its keys and certificates."""
# ruff: noqa: F401, F811 - fixtures are imported by name

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from client.preflight import examine, keys
from client.preflight import folder as files
from tests.loopback import authority, server_files
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
    wrong,
)
from vgmedgen.privacy.ledger import Ledger
from vgmedgen.process.lock import only_one
from vgmedgen.trust import nodekeys
from vgmedgen.trust.certificates import make_authority
from vgmedgen.trust.journal import Journal


def test_an_unknown_key_is_named_with_the_nearest_and_hides_nothing_else(site, kit):
    with served(site, kit):
        text = (site / "site.yaml").read_text()
        (site / "site.yaml").write_text(text + "heldot: 0.3\n")
        found = of(examine(site))
    assert "'heldot'" in found["site.yaml"].told
    assert "did you mean 'heldout'" in found["site.yaml"].todo
    assert QUICK - wrong(found) == QUICK - {"site.yaml", "ledger"}
    assert found["data"].told == "not examined: it needs 'site.yaml'"


@pytest.mark.parametrize("text", ["{", "- a\n- b\n", "name: [\n", "\x00", "name: {}"])
def test_a_site_yaml_of_another_form_is_one_line(site, text):
    (site / "site.yaml").write_text(text)
    found = quick(site)
    assert not found["site.yaml"].ok
    assert not found["policy"].ok
    assert found["node key"].ok


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("{coordinators: []}", "lists no key"),
        ("{coordinators: [abc]}", "'abc' is not a signing key"),
        (f"{{coordinators: [{'a' * 64}]}}", "does not list the key of coordinator.pub"),
        ("{aproval: required}", "'aproval'"),
        ("{approval: maybe}", "policy.approval"),
    ],
)
def test_a_policy_that_cannot_serve_the_coordinator_is_told(site, policy, told):
    (site / "site.yaml").write_text(f"name: site-a\npolicy: {policy}\n")
    found = quick(site)
    assert not found["policy"].ok
    assert told in found["policy"].told


def test_a_coordinators_key_that_cannot_be_compared_is_told(site):
    (site / "coordinator.pub").write_text("ssh-ed25519 AAAA\n")
    assert "does not hold a signing key" in quick(site)["policy"].told
    (site / "coordinator.pub").unlink()
    assert warned(quick(site)) == {"policy"}


def test_a_folder_that_others_can_look_into_is_a_warning_and_its_node_a_fault(site):
    site.chmod(0o755)
    found = quick(site)
    assert found["folder"].warning
    assert found["folder"].todo == f"chmod 700 {site}"
    (site / "node").mkdir(mode=0o700)
    assert quick(site)["folder"].ok
    (site / "node").chmod(0o750)
    found = quick(site)
    assert not found["folder"].ok
    assert "mode 750" in found["folder"].told


def test_writing_is_tried_and_not_read_off_permissions(site):
    # the kernel lets nobody make files here, root neither
    (site / "cache").symlink_to("/proc/self")
    found = quick(site)
    assert not found["folder"].ok
    assert f"cannot write into {site / 'cache'}" in found["folder"].told


def test_a_file_in_the_place_of_a_folder_is_told(site):
    (site / "approvals").write_text("")
    assert "Not a directory" in quick(site)["folder"].told


def test_a_ledger_is_read_whole(site, booked_ledger):
    for path in booked_ledger.iterdir():
        if path.is_file():
            shutil.copy(path, site)
    rows = Ledger(site, "").rows()
    name = rows[0].facts["site"]
    text = (site / "site.yaml").read_text().replace("site-a", name)
    (site / "site.yaml").write_text(text)
    found = of(examine(site))
    assert found["ledger"].ok, found["ledger"]
    assert rows[-1].hash[:16] in found["ledger"].told

    content = bytearray((site / "ledger.sqlite").read_bytes())
    place = content.index(b"generate")
    content[place : place + 8] = b"degraded"
    (site / "ledger.sqlite").write_bytes(content)
    found = of(examine(site))
    assert not found["ledger"].ok
    assert "ledger" in found["ledger"].told


def test_a_ledger_of_another_site_or_lost_is_a_fault(site, booked_ledger):
    shutil.copy(booked_ledger / "ledger.head", site)
    assert not of(examine(site))["ledger"].ok
    (site / "ledger.head").unlink()
    (site / "runs" / "r" / "round-0001").mkdir(parents=True)
    assert not of(examine(site))["ledger"].ok
    assert not (site / "ledger.sqlite").exists()


def test_a_ledger_that_lacks_what_was_answered_is_a_fault(site, booked_ledger):
    Journal(site / "audit.jsonl").add(
        "out", kind="train", run="r", round=1, decision="sent"
    )
    for begun in (False, True):
        if begun:
            for path in booked_ledger.iterdir():
                shutil.copy(path, site)
        found = of(examine(site))["ledger"]
        assert not found.ok
        assert "round 1 of run r was answered" in found.told


def test_a_locked_ledger_is_told_in_seconds(site, monkeypatch):
    import sqlite3

    monkeypatch.setattr(files, "_WAIT_S", 0.05)
    Ledger.create(site, "site-a")
    holder = sqlite3.connect(site / "ledger.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    found = of(examine(site))
    holder.rollback()
    holder.close()
    assert "database is locked" in found["ledger"].told
    assert of(examine(site))["ledger"].ok


def test_an_audit_log_is_read_whole(site):
    log = Journal(site / "audit.jsonl")
    for number in range(3):
        log.add("start", site="site-a", pid=number)
    assert "intact; 3 lines" in of(examine(site))["audit log"].told
    lines = (site / "audit.jsonl").read_text().splitlines(keepends=True)
    (site / "audit.jsonl").write_text("".join([lines[0], lines[2]]))
    found = of(examine(site))["audit log"]
    assert not found.ok
    assert "line 2" in found.told


def test_a_crash_of_the_audit_log_is_a_warning_that_start_mends(site):
    log = Journal(site / "audit.jsonl")
    log.add("start", site="site-a", pid=1)
    whole = (site / "audit.jsonl").read_text()
    (site / "audit.jsonl").write_text(whole + '{"n": 2, "at"')
    assert of(examine(site))["audit log"].warning
    (site / "audit.jsonl").write_text(whole)
    head = (site / "audit.head").read_text()
    log.add("stop", site="site-a", pid=1)
    (site / "audit.head").write_text(head)
    assert of(examine(site))["audit log"].warning
    log.add("start", site="site-a", pid=2)
    assert not of(examine(site))["audit log"].warning


def test_runs_that_wait_for_the_officer_are_told(site):
    assert "no run waits" in of(examine(site))["approvals"].told
    ask = dict.fromkeys(("plan", "plan-digest", "exchange", "base", "coordinator"), "x")
    ask["at"] = "2026-11-21T09:00:00+00:00"
    (site / "approvals").mkdir()
    for run in ("run-a", "run-b"):
        kept = {"run": run, "asks": [ask], "decisions": []}
        (site / "approvals" / f"{run}.json").write_text(json.dumps(kept))
    found = of(examine(site))["approvals"]
    assert found.warning
    assert found.told == "run run-a and 1 more waits for one"
    (site / "approvals" / "run-a.json").write_text("{")
    assert not of(examine(site))["approvals"].ok


def test_only_one_node_may_start_on_a_folder(site):
    lock = site / "node" / "lock"
    code = (
        "import sys; from pathlib import Path; from vgmedgen.process.lock import only_one"
        f"\nwith only_one(Path({str(lock)!r}), 'x'): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "held\n"
        found = quick(site)
        assert not found["node"].ok
        assert f"process {other.pid}" in found["node"].told
        assert of(examine(site))["node"].ok  # no fault of a site that serves
        other.communicate("\n")
    assert quick(site)["node"].told == "none runs on this folder"
    with only_one(lock, "the node that looks before it starts"):
        assert quick(site)["node"].ok


def test_a_key_that_others_can_read_is_refused(site):
    (site / "node.key").chmod(0o644)
    found = quick(site)
    assert not found["node key"].ok
    assert "mode 644" in found["node key"].told
    assert "chmod 600" in found["node key"].todo
    assert not found["registered"].ok  # and is not used on the wire


def test_a_key_that_is_not_there_or_none_is_told(site):
    (site / "node.key").write_text("no key")
    assert "OpenSSH form" in quick(site)["node key"].told
    (site / "node.key").unlink()
    assert "cannot read" in quick(site)["node key"].told


def test_a_public_half_of_another_key_is_found(site, tmp_path):
    nodekeys.make(tmp_path / "second.key")
    shutil.copy(tmp_path / "second.pub", site / "node.pub")
    assert "is not the public half" in quick(site)["node key"].told
    (site / "node.pub").unlink()
    assert quick(site)["node key"].warning


def test_a_ca_certificate_is_looked_at_before_it_expires(site, tmp_path, monkeypatch):
    assert "in 399 days" in quick(site)["CA certificate"].told
    authority(site, "ca", days=12)
    found = quick(site)["CA certificate"]
    assert found.warning
    assert "in 11 days" in found.told
    monkeypatch.setattr(keys, "SOON", 5)
    assert not quick(site)["CA certificate"].warning


def test_a_ca_certificate_that_has_expired_is_told_with_its_day(site):
    begun = datetime.now(UTC) - timedelta(days=20)
    old = make_authority("ca", 10, now=begun)
    (site / "ca.crt").write_bytes(old.certificate_pem)
    found = quick(site)["CA certificate"]
    assert not found.ok
    assert f"expired on {begun + timedelta(days=10):%Y-%m-%d}" in found.told


def test_a_ca_certificate_that_is_none_is_told(site, kit):
    pair = server_files(kit[0], kit[1])
    for content, told in (
        (b"nothing", "not a certificate"),
        (pair.certificate.read_bytes(), "authority"),
    ):
        (site / "ca.crt").write_bytes(content)
        found = quick(site)["CA certificate"]
        assert not found.ok
        assert told in found.told
