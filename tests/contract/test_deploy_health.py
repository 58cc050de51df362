"""The health check of the images: what it calls well, and what not."""

import importlib.util
import ssl
import threading
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


def a_node(role):
    return ["python", "-m", "client.node", role, "/srv/vgmedgen/site"]


def test_the_health_check_looks_for_the_processes_that_the_supervisor_keeps(health):
    from client import supervisor

    assert supervisor.ROLE == health.MODULE
    text = Path(supervisor.__file__).read_text()
    assert all(f'module(ROLE, "{role}"' in text for role in health.ROLES)


def test_a_node_with_both_its_processes_is_well(health, tmp_path):
    told = {
        1: ("S", 0, INIT),
        7: ("S", 1, KEEPER),
        8: ("S", 7, a_node("supernode")),
        9: ("R", 7, a_node("runner")),
    }
    assert health.client(a_proc(tmp_path, told)) == ""


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
