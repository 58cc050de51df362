"""A coordinator and three hospitals over TLS, started and attacked as real processes."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from server.gates import ACTIVATE
from tests.federation.attacks import malicious_bundle
from tests.federation.processes import BIN, Deployment, Recorder, ask, command, wait
from vgmedgen.files import tree_digests

SHORT = (
    "federation.align_rounds=1",
    "federation.evaluate=false",
    "federation.return_s=900",  # on a busy machine a node takes a minute to start
)
# Signatures and weights are bytes of chance on the wire: a trace has letters enough, or a
# sign that base64 lacks, that they do not spell it.
PATIENT = "patient-Anastasia-Ortizova-1971"
TRACES = (PATIENT, "Anastasia", "Ortizova", ".csv", "Traceback", "Error(")

pytestmark = pytest.mark.simulation


@pytest.fixture(scope="module")
def place(tmp_path_factory, bundle, hospitals):
    """A server and three nodes; the third one's traffic is recorded in the clear."""
    made = Deployment(tmp_path_factory.mktemp("deployment"), bundle, hospitals)
    made.recorder = Recorder(made.kits / "coordinator", made.port)
    made.edit(
        "hospital-c",
        coordinator={"address": f"localhost:{made.recorder.port}"},
        policy={"approval": "required"},
    )
    try:
        made.start("--page", "--json")
        yield made
    finally:
        made.stop()
        made.recorder.close()


@pytest.fixture(scope="module")
def first(place):
    """A finished run that waited for hospital-c's approval."""
    run = place.run("federation.generate_rounds=5", *SHORT)
    wait(lambda: place.waits_for(run) == {"hospital-c": "VG42"}, what="a waiting run")
    shown = command("vgmedgen-server", "status", "--kits", place.kits).stdout
    assert "waits for hospital-c (VG42" in " ".join(shown.split())
    assert not place.records(run)
    site = place.site("hospital-c") / "site.yaml"
    command(
        "vgmedgen-client",
        *("approve", run, "--site", site, "--yes", "--by", "A. Officer"),
    )
    assert place.ended(run)["state"] == "finished"
    return run


@pytest.fixture
def everybody(place, first):
    """The place, where hospital-c takes part in every run without being asked."""
    place.edit("hospital-c", policy={"approval": "none"})
    return place


def test_a_run_waits_for_an_approval_before_its_first_round(place, first):
    records = place.records(first)
    assert all(record["sites"] == place.names for record in records)
    assert all(record["counted"] for record in records)
    folder = place.kits / "coordinator/state/runs" / first
    assert not (folder / "waiting.json").exists()


def test_every_site_installs_the_same_release(place, first):
    told = json.loads(
        (place.kits / "coordinator/state/runs" / first / "installed.json").read_text()
    )
    assert told["sites"] == dict.fromkeys(place.names, told["manifest"])
    for name in place.names:
        pointer = place.site(name) / "releases" / "current"
        assert told["manifest"].startswith(pointer.read_text())


def test_a_site_lists_the_release_as_signed_by_its_coordinator(place, first):
    key = (place.kits / "coordinator/coordinator.pub").read_text().strip()
    for name in place.names:
        site = place.site(name) / "site.yaml"
        done = command("vgmedgen-client", "models", "--site", site, "--json")
        (row,) = [row for row in json.loads(done.stdout) if row["run"] == first]
        assert row["signed_by"] == key
        assert row["created"].startswith("20")
        told = command("vgmedgen-client", "models", "verify", "--site", site).stdout
        assert f"✓ {row['name']}" in told
        installed = [e for e in place.journal(name) if e["event"] == "install"]
        assert row["digest"] in {e["digest"] for e in installed}


def test_a_hospital_that_was_offline_installs_the_file_to_the_same_digest(
    place, first, tmp_path
):
    out = tmp_path / "releases"
    words = ("publish", first, "--kits", place.kits, "--out", out)
    told = command("vgmedgen-server", *words).stdout
    assert f"{first}.vgrel" in told
    offline = tmp_path / "offline"
    offline.mkdir()
    shutil.copy(place.site("hospital-b") / "site.yaml", offline)
    words = ("install", out / f"{first}.vgrel", "--site", offline / "site.yaml")
    command("vgmedgen-client", *words, "--by", "A. Officer")
    done = command("vgmedgen-client", "models", "--site", offline, "--json")
    (row,) = json.loads(done.stdout)
    folder = place.kits / "coordinator/state/runs" / first
    assert (
        row["digest"] == json.loads((folder / "installed.json").read_text())["manifest"]
    )
    assert row["current"]
    here = offline / "releases" / row["name"] / "pipeline"
    there = place.site("hospital-b") / "releases" / row["name"] / "pipeline"
    same = tree_digests(there, leave_out=frozenset())
    assert tree_digests(here, leave_out=frozenset()) == same


def test_status_tells_who_is_there_and_what_came_of_every_round(place, first):
    done = command("vgmedgen-server", "status", "--kits", place.kits, "--json")
    told = json.loads(done.stdout)
    assert told["running"]
    nodes = {node["site"]: node for node in told["nodes"]}
    assert set(nodes) == set(place.names)
    assert all(node["online"] and node["base_ok"] for node in nodes.values())
    (run,) = [run for run in told["runs"] if run["run"] == first]
    assert run["state"] == "finished"
    assert len(run["records"]) == 6
    plain = command("vgmedgen-server", "status", "--kits", place.kits).stdout
    assert "hospital-b" in plain
    assert first in plain


def test_the_status_page_is_served_on_loopback_with_nothing_from_elsewhere(
    place, first
):
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{place.port + 2}/") as answer:
        page = answer.read().decode()
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert first in page
    assert "https://" not in page


def test_the_public_port_answers_nothing_but_fleet_and_health(place):
    ca = place.kits / "coordinator/ca.crt"
    tail = "HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    assert " 200 " in ask(place.port, f"GET /health {tail}", ca=ca)
    for path in (
        *(
            "/v1/control/start-run",
            "/v1/control/list-runs",
            "/v1/control/register-node",
        ),
        *("/v1/runtime/acquire-task", "/v1/runtime/pull-task-input"),
        *("/v1/fleet/register-node", "/docs", "/openapi.json", "/", "/status.json"),
    ):
        for method in ("GET", "POST"):
            assert " 404 " in ask(place.port, f"{method} {path} {tail}", ca=ca), path
    # a node without a signature is nobody
    unsigned = f"POST /v1/fleet/pull-messages {tail}"
    assert ask(place.port, unsigned, ca=ca).split()[1] in {"400", "401", "415", "422"}
    control = f"POST /v1/control/list-runs {tail}"
    assert " 404 " in ask(place.port + 1, control, secure=False)


@pytest.mark.parametrize("keyed", [False, True], ids=["without a key", "unregistered"])
def test_a_stock_supernode_that_was_not_let_in_does_not_get_in(place, tmp_path, keyed):
    from vgmedgen.trust import nodekeys

    words = ["--superlink", f"localhost:{place.port}", "--port", str(place.port + 1000)]
    words += ["--isolation", "process"]
    words += ["--root-certificates", str(place.kits / "coordinator/ca.crt")]
    if keyed:
        nodekeys.make(tmp_path / "own.key")
        words += ["--auth-supernode-private-key", str(tmp_path / "own.key")]
    done = subprocess.run(
        [BIN / "flower-supernode", *words],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={"PATH": str(BIN), "HOME": str(tmp_path), "FLWR_TELEMETRY_ENABLED": "0"},
    )
    assert done.returncode
    told = done.stdout + done.stderr
    assert "Failed to initialize the connection" in told
    assert "SuperNode ID" not in told


def test_a_node_of_a_hospital_cannot_be_started_twice_but_checked_while_it_runs(place):
    site = place.site("hospital-a") / "site.yaml"
    before = len(place.server.text)
    done = command("vgmedgen-client", "check", "--site", site, "--json", check=False)
    (known,) = [row for row in json.loads(done.stdout) if row["name"] == "registered"]
    assert known["ok"]
    assert "knows" in known["told"]
    assert ACTIVATE not in place.server.text[before:]  # no complaint of Flower's
    done = command("vgmedgen-client", "start", "--site", site, check=False)
    assert done.returncode == 1
    assert "is running already" in done.stderr
    assert done.stderr.count("[VG55]") == 1
    done = command("vgmedgen-server", "start", "--kits", place.kits, check=False)
    assert done.returncode == 1
    assert "is running already" in done.stderr


def test_both_audit_logs_are_whole_and_name_nothing_but_words_of_the_protocol(
    place, first
):
    for name in place.names:
        site = place.site(name) / "site.yaml"
        command("vgmedgen-client", "audit", "verify", "--site", site)
        events = [
            (e["event"], e.get("kind"), e.get("decision")) for e in place.journal(name)
        ]
        assert ("out", "train", "sent") in events
    command("vgmedgen-server", "audit", "verify", "--kits", place.kits)
    told = [e for e in place.journal() if e.get("run") == first]
    assert {e["event"] for e in told} == {"in", "out"}
    waiting = [e for e in told if e.get("code") == "VG42"]
    assert waiting
    assert all(e["site"] == "hospital-c" for e in waiting)


def test_code_in_a_bundle_is_neither_unpacked_nor_imported(
    everybody, tmp_path, monkeypatch
):
    from server import flower, runs
    from server import place as files
    from server.kits import Kits
    from server.launching import stop

    marker = tmp_path / "ran"
    sent = malicious_bundle(marker)
    with zipfile.ZipFile(BytesIO(sent)) as archive:
        archive.extractall(tmp_path / "unpacked")
    subprocess.run(
        [sys.executable, "-c", "import client.app"],
        cwd=tmp_path / "unpacked",
        env={**os.environ, "PYTHONSAFEPATH": ""},  # as Python is by itself
        check=True,
    )
    assert marker.read_text() == "clientclient.app"  # whoever unpacks it is caught
    marker.unlink()

    place = everybody
    state = Kits.open(place.kits).state
    run = place.run("federation.generate_rounds=1", "seed=11", *SHORT)
    folder = runs.folder_of(state, run)
    wait(lambda: runs.read(folder).state == runs.RUNNING, what="the run")
    stop(Kits.open(place.kits), run)
    wait(lambda: place.server.child("player") is None, what="the player's end")
    # whoever holds the coordinator's machine starts it again, with a bundle of his own
    monkeypatch.setattr("server.flower.control.bundle", lambda: sent)
    control = flower.Control(place.port + 1, files.token(state))
    for _ in range(20):
        engine = control.start(run)
        runs.write(folder, runs.RUNNING, engine=engine, attempts=2)
        time.sleep(3)
        if control.ended(engine) is None:
            break  # else the server looked between the two lines, and stopped it
    control.close()
    now = place.ended(run)
    assert (now["state"], now["engine"]) == ("finished", engine)
    assert place.records(run)[-1]["sites"] == place.names
    assert not marker.exists()
    for name in place.names:
        found = [p for p in place.site(name).rglob("*") if p.name in {"apps", "client"}]
        assert not found


def without_c(place, seed):
    """Codes under which hospital-c is left out of a run, and what it sent meanwhile."""
    before = len(place.recorder.up)
    run = place.run("federation.generate_rounds=1", f"seed={seed}", *SHORT)
    assert place.ended(run)["state"] == "finished"
    codes = [record["left_out"].get("hospital-c") for record in place.records(run)]
    return run, codes, bytes(place.recorder.up[before:])


def test_an_exceptions_text_stays_at_the_site(everybody, tmp_path):
    place = everybody
    site, log = place.site("hospital-c"), place.nodes["hospital-c"].log
    broken = tmp_path / f"{PATIENT}.csv"
    broken.write_text(f"image,unit\n{tmp_path}/{PATIENT}.png,{PATIENT}\n")
    sources = [{"dataset": "table", "root": str(broken)}]
    with place.changed("hospital-c", sources=sources):
        _, codes, sent = without_c(place, seed=12)
    assert codes == ["VG20", "VG20"]
    assert b"VG20" in sent
    for trace in (*TRACES, str(tmp_path)):
        assert trace.encode() not in sent, trace
    # at the site it is told, to the one who may read it, and not to a log collector
    details = site / "node" / "details.log"
    assert PATIENT in details.read_text()
    assert details.stat().st_mode & 0o077 == 0
    assert PATIENT not in log.read_text()
    assert PATIENT not in (site / "audit.jsonl").read_text()


def test_a_dry_run_sends_nothing_that_was_made_from_data(everybody):
    place = everybody
    with place.changed("hospital-c", policy={"dry_run": True}):
        run, codes, sent = without_c(place, seed=13)
    assert codes == ["VG44", "VG44"]
    assert b"VG44" in sent
    for word in (b"num-units", b"loss-sum", b"numpy.ndarray", b"update"):
        assert word not in sent, word
    shown = place.site("hospital-c") / "dry-run" / run / "round-0001.json"
    assert json.loads(shown.read_text())


def same_as(place, run, other):
    """Whether two runs that differ in nothing but their names end with the same bytes."""
    return place.last_weights(run) == place.last_weights(other)


def test_a_run_ends_the_same_when_superlink_and_player_are_killed_under_it(everybody):
    place = everybody
    asked = ("federation.generate_rounds=2", "seed=14", *SHORT)
    calm = place.run("--name", "calm", *asked)
    assert place.ended(calm)["state"] == "finished"
    rough = place.run("--name", "rough", *asked)
    wait(lambda: place.records(rough), what="round 1")
    assert place.server.kill("superlink")
    wait(lambda: len(place.records(rough)) >= 2, what="round 2")
    place.server.kill("player")
    assert place.ended(rough)["state"] == "finished"
    for record in place.records(rough):
        assert record["sites"] == place.names, record
    assert same_as(place, calm, rough)


def test_a_killed_server_goes_on_when_it_is_started_again(everybody):
    place = everybody
    run = place.run("federation.generate_rounds=2", "seed=15", *SHORT)
    wait(lambda: place.records(run), what="round 1")
    place.server.kill()
    time.sleep(2)
    assert place.state(run)["state"] == "running"
    place.start_server("--page")
    assert place.ended(run)["state"] == "finished"
    assert [r["number"] for r in place.records(run)] == [1, 2, 3]


def test_a_run_that_is_stopped_goes_on_when_it_is_asked_to(everybody):
    place = everybody
    asked = ("--name", "stopped", "federation.generate_rounds=3", "seed=16", *SHORT)
    run = place.run(*asked)
    wait(lambda: place.records(run), what="round 1")
    command("vgmedgen-server", "stop", run, "--kits", place.kits)
    assert place.ended(run)["state"] == "stopped"
    wait(lambda: place.server.child("player") is None, what="the player's end")
    done = len(place.records(run))
    assert done < 4
    assert place.run(*asked) == run
    wait(lambda: place.state(run)["state"] == "finished", what="the rest")
    assert len(place.records(run)) == 4


def test_what_was_said_names_no_patient(place):
    """Logs, audit logs and everything at the coordinator."""
    told = [place.server.log, *(node.log for node in place.nodes.values())]
    told += [p for p in (place.kits / "coordinator/state").rglob("*") if p.is_file()]
    for path in told:
        assert PATIENT.encode() not in path.read_bytes(), path
    assert PATIENT.encode() not in bytes(place.recorder.up)


def test_sigterm_stops_a_node_and_its_key_is_let_in_again_at_once(place):
    node = place.nodes["hospital-b"]
    pids = [node.child("supernode"), node.child("runner")]
    assert node.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    place.start_node("hospital-b")
    place.wait_nodes("hospital-b")
    node = place.nodes["hospital-b"]
    assert "code: 2004" not in node.text[node.begins :]
