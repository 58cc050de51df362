"""The health check of the images: what it calls well, and what not."""

import importlib.util
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "configs" / "deploy"


@pytest.fixture(name="health", scope="module")
def _health():
    spec = importlib.util.spec_from_file_location("health", DEPLOY / "health.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(name="listener")
def _listener(tmp_path):
    from vgmedgen.trust import certificates

    authority = certificates.make_authority("ours", 30)
    issued = certificates.make_server(authority, ["fl.example.org"], 30)
    for name, made in (("ca", authority), ("server", issued)):
        (tmp_path / f"{name}.crt").write_bytes(made.certificate_pem)
        (tmp_path / f"{name}.key").write_bytes(made.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path / "ca.crt", server.server_port
        server.shutdown()
        thread.join()


def test_a_coordinator_that_answers_is_well(health, listener):
    authority, port = listener
    assert health.main(["server", str(authority), str(port)]) == ""


def test_a_coordinator_under_another_authority_or_silent_is_not_well(
    health, listener, tmp_path
):
    from vgmedgen.trust import certificates

    authority, port = listener
    other = tmp_path / "other.crt"
    other.write_bytes(certificates.make_authority("other", 30).certificate_pem)
    assert "CERTIFICATE_VERIFY_FAILED" in health.main(["server", str(other), str(port)])
    assert "server: " in health.main(["server", str(tmp_path / "none.crt"), str(port)])
    with HTTPServer(("127.0.0.1", 0), Answer) as closed:
        free = closed.server_port
    assert "refused" in health.main(["server", str(authority), str(free)])


KEEPER = ["/opt/vgmedgen/bin/python", "/opt/vgmedgen/bin/vgmedgen-client", "start"]
INIT = ["/sbin/docker-init", "--", *KEEPER[1:]]


def a_proc(folder, processes):
    """Processes as the kernel shows them: number -> (state, parent, command line)."""
    for number, (state, parent, words) in processes.items():
        place = folder / str(number)
        place.mkdir(parents=True)
        (place / "stat").write_text(f"{number} (a ) name) {state} {parent} 1 1 0")
        (place / "cmdline").write_bytes("\0".join([*words, ""]).encode())
    (folder / "meminfo").write_text("MemTotal: 1 kB")
    return folder


def a_node(role, site="/srv/vgmedgen/site"):
    return ["python", "-P", "-m", "client.node", role, str(site)]


def a_whole_node(folder):
    told = {
        1: ("S", 0, INIT),
        7: ("S", 1, KEEPER),
        8: ("S", 7, a_node("supernode", folder / "site")),
        9: ("R", 7, a_node("runner", folder / "site")),
    }
    return a_proc(folder / "proc", told)


def heard(folder, *, ago, at="2026-11-30T09:31:04+00:00"):
    """As the supervisor writes it: a heartbeat that was confirmed `ago` seconds ago."""
    path = folder / "site" / "node" / "heard.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    clock = time.monotonic() - ago
    told = {"at": at, "clock": clock if at else None, "since": clock}
    path.write_text(json.dumps(told))


def test_the_health_check_looks_for_the_processes_that_the_supervisor_keeps(health):
    from client import supervisor

    assert supervisor.ROLE == health.MODULE
    text = Path(supervisor.__file__).read_text(encoding="utf-8")
    assert all(f'module(ROLE, "{role}"' in text for role in health.ROLES)


def test_what_the_health_check_reads_is_what_the_supervisor_writes(health, tmp_path):
    from client import heartbeats, node, supervisor

    assert f"{supervisor.NODE}/{heartbeats.FILE}" == health.HEARD
    assert heartbeats.UNHEARD_S == health.UNHEARD_S
    (tmp_path / "node").mkdir()
    kept = heartbeats.Heartbeats(tmp_path / "node")
    assert health.unheard(tmp_path / health.HEARD) == ""
    assert heartbeats.heard(tmp_path / "node").at == ""
    kept.node_says(f"DEBUG x: {node.CONFIRMED}")
    assert health.unheard(tmp_path / health.HEARD) == ""
    assert heartbeats.heard(tmp_path / "node").at


def test_a_node_with_both_its_processes_that_was_heard_is_well(health, tmp_path):
    proc = a_whole_node(tmp_path)
    heard(tmp_path, ago=20)
    assert health.client(proc) == ""
    heard(tmp_path, ago=20, at="")  # it was just started
    assert health.client(proc) == ""


def test_a_node_that_the_coordinator_does_not_hear_is_not_well(health, tmp_path):
    proc = a_whole_node(tmp_path)
    heard(tmp_path, ago=130)
    assert "has not heard this node since 2026-11-30T09:31:04" in health.client(proc)
    heard(tmp_path, ago=130, at="")
    assert "has not heard this node since its start" in health.client(proc)


@pytest.mark.parametrize(
    ("runner", "why"),
    [
        (("Z", 7, a_node("runner")), "no runner runs"),  # ended
        (("S", 7, a_node("supernode")), "no runner runs"),
        (("S", 1, a_node("runner")), "no runner runs"),  # its keeper is gone
    ],
)
def test_a_node_that_lacks_a_process_is_not_well(health, tmp_path, runner, why):
    told = {
        1: ("S", 0, INIT),
        7: ("S", 1, KEEPER),
        8: ("S", 7, a_node("supernode")),
        9: runner,
    }
    assert why in health.client(a_proc(tmp_path, told))


def test_an_init_that_was_told_to_start_a_node_is_no_node(health, tmp_path):
    told = {1: ("S", 0, INIT), 8: ("S", 1, a_node("supernode"))}
    assert health.client(a_proc(tmp_path, told)) == "no vgmedgen-client start runs here"
