"""What a site relies on in Flower, seam by seam."""

import inspect
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.constant import TaskType
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import start_client_internal as supernode
from flwr.supernode.cli.flower_supernode import _parse_supernode_lifespan_config
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState
from flwr.supernode.runtime import run_clientapp

from client.flower import Answering
from client.flower.tasks import _check_kind
from client.supervisor import Stuck
from vgmedgen.errors import DataError, ExchangeError
from vgmedgen.exchange.schema import SITE_ERROR

A_PATIENT = "/data/patient-Ana-Ortiz-1971.png"


@pytest.fixture(autouse=True)
def _server(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def message():
    made = Message(RecordDict(), 7, "train", ttl=60.0, group_id="1")
    made.metadata.__dict__["_message_id"] = "m"
    return made


def context():
    return Context(
        run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={}
    )


def answering(app, tmp_path, *, look=lambda message, reply: None):
    dropped = []
    made = Answering(app=app, look=look, dropped=dropped.append, folder=tmp_path)
    return made, dropped


def test_a_supernode_takes_the_words_that_we_give_it(monkeypatch, tmp_path):
    from client import flower
    from client.flower import supernode as carrying
    from vgmedgen.trust import nodekeys
    from vgmedgen.trust.certificates import make_authority

    nodekeys.make(tmp_path / "node.key")
    (tmp_path / "ca.crt").write_bytes(make_authority("x", 3).certificate_pem)
    (tmp_path / "secret").write_bytes(b"s" * 64)
    seen = []
    monkeypatch.setattr(
        carrying,
        "flower_supernode",
        lambda: seen.append(_parse_supernode_lifespan_config()),
    )
    flower.run_supernode(
        address="fl.example.org:8443",
        ca=tmp_path / "ca.crt",
        key=tmp_path / "node.key",
        port=9,
        secret=tmp_path / "secret",
    )
    (config,) = seen
    assert config.server_address == "fl.example.org:8443"
    assert config.isolation == "process"
    assert config.superexec_auth_secret == b"s" * 64
    assert (config.host, config.port) == ("127.0.0.1", 9)
    assert config.insecure is False
    assert config.runtime_dependency_install is False
    assert config.authentication_keys is not None


def test_the_text_of_an_exception_is_replaced_by_its_code(message, tmp_path, caplog):
    def app(message, context):
        raise DataError(f"cannot read {A_PATIENT}")

    made, dropped = answering(app, tmp_path)
    reply = made(message, context(), TaskType.CLIENT_APP)
    assert (reply.error.code, reply.error.reason) == (SITE_ERROR, "VG20")
    assert A_PATIENT not in str(vars(reply))
    assert dropped == ["VG20"]


@pytest.mark.parametrize("failure", [ValueError, SystemExit, MemoryError])
def test_whatever_is_raised_ends_as_a_code(message, tmp_path, failure):
    def app(message, context):
        raise failure(A_PATIENT)

    made, _ = answering(app, tmp_path)
    reply = made(message, context(), TaskType.CLIENT_APP)
    assert reply.error.reason == "VG00"
    assert reply.metadata.reply_to_message_id == "m"


def test_a_reply_that_the_last_look_stops_does_not_leave(message, tmp_path):
    content = RecordDict({"secret": ConfigRecord({"path": A_PATIENT})})

    def look(message, reply):
        raise ExchangeError("not listed")

    made, dropped = answering(
        lambda m, c: Message(content, reply_to=m), tmp_path, look=look
    )
    reply = made(message, context(), TaskType.CLIENT_APP)
    assert not reply.has_content()
    assert reply.error.reason == "VG30"
    assert dropped == ["VG30"]


def test_a_task_of_another_kind_is_answered_without_running_anything(message, tmp_path):
    ran = []
    made, _ = answering(lambda m, c: ran.append(1), tmp_path)
    for kind in TaskType:
        if kind != TaskType.CLIENT_APP:
            assert made(message, context(), str(kind)).error.reason == "VG30"
    assert not ran
    _check_kind(TaskType.CLIENT_APP)


def test_what_the_app_sees_of_the_node_is_the_operators(message, tmp_path):
    seen = []

    def app(message, context):
        seen.append(context.node_config)
        return Message(Error(code=SITE_ERROR, reason="VG40"), reply_to=message)

    made, _ = answering(app, tmp_path)
    told = context()
    told.node_config = {"site": "/etc", "partition-id": 3}
    made(message, told, TaskType.CLIENT_APP)
    assert seen == [{"site": str(tmp_path)}]


def test_flower_tells_receiving_and_sending_as_the_supervisor_listens_for():
    source = inspect.getsource(supernode)
    assert '"Receiving: %s message (ID: %s)"' in source
    assert '"Sending: %s message (ID: %s)"' in source
    # the wait without end that makes it worth while
    assert "while not (reply_messages :=" in source


def test_flower_answers_for_a_runner_only_once_its_message_was_read():
    source = inspect.getsource(InMemoryNodeState._store_error_replies)
    assert "entry.is_retrieved" in source
    assert ErrorCode.CLIENT_APP_CRASHED == 8


def test_flowers_steps_of_a_task_are_where_we_take_them_from():
    for name in ("pull_task_input", "push_message", "push_task_output"):
        assert callable(getattr(run_clientapp, name))
    names = list(inspect.signature(run_clientapp.push_task_output).parameters)
    assert names == ["client", "context", "sub_status", "details"]


@pytest.fixture
def stuck(monkeypatch):
    from client import supervisor

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: clock.now)
    made = Stuck(after_s=100.0)
    made.clock = clock
    return made


def test_a_supernode_that_waits_while_nobody_works_is_found(stuck):
    stuck.node_says("INFO flwr: Receiving: train message (ID: ab)")
    stuck.runner_started()  # the one that took it is dead
    stuck.clock.now = 99.0
    assert not stuck.found()
    stuck.clock.now = 101.0
    assert stuck.found()
    stuck.reset()
    assert not stuck.found()


def test_a_runner_at_work_is_left_alone_however_long_it_takes(stuck):
    stuck.node_says("Receiving: train message (ID: ab)")
    stuck.runner_says("INFO client.flower.tasks: a message is being answered")
    stuck.clock.now = 1e6
    assert not stuck.found()
    stuck.node_says("Sending: train message (ID: cd)")
    stuck.runner_started()
    stuck.clock.now = 2e6
    assert not stuck.found()


def test_a_client_of_flowers_follows_redirects_and_ours_does_not():
    from unittest import mock

    import httpx
    from flwr.supernode.fleet_http_client import FleetHttpClient

    from client.flower.supernode import Straight

    def made():
        return FleetHttpClient.from_server_address(
            "localhost:1", insecure=True, root_certificates=None, interceptors=[]
        )

    with made() as flowers:
        assert flowers._client.follow_redirects  # else the patch can go
    with mock.patch.object(httpx, "Client", Straight), made() as ours:
        assert not ours._client.follow_redirects


def test_a_server_that_sends_a_node_elsewhere_gets_nothing_there(tmp_path):
    import ssl
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from client.flower import registered
    from vgmedgen.errors import VGMedGenError
    from vgmedgen.trust import nodekeys
    from vgmedgen.trust.certificates import make_authority, make_server

    knocked = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self):
            knocked.append(self.path)

        do_GET = do_POST  # noqa: N815 - the name that http.server looks for

        def log_message(self, *words):
            pass

    elsewhere = HTTPServer(("127.0.0.1", 0), Elsewhere)

    class Sends(Elsewhere):
        def do_POST(self):
            seen.append(self.path)
            self.send_response(307)
            where = f"http://127.0.0.1:{elsewhere.server_port}/internal"
            self.send_header("Location", where)
            self.end_headers()

    seen = []
    authority = make_authority("x", 3)
    made = make_server(authority, ["localhost"], 2)
    (tmp_path / "crt").write_bytes(made.certificate_pem)
    (tmp_path / "key").write_bytes(made.key_pem)
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    sends = HTTPServer(("127.0.0.1", 0), Sends)
    sends.socket = inside.wrap_socket(sends.socket, server_side=True)
    nodekeys.make(tmp_path / "node.key")
    trusted = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    servers = (elsewhere, sends)
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(VGMedGenError):
            registered(
                f"localhost:{sends.server_port}",
                trusted,
                nodekeys.load(tmp_path / "node.key"),
                timeout=60,
            )
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
    assert seen
    assert not knocked


def test_a_bundles_settings_are_read_where_we_keep_them_from_being_read():
    source = inspect.getsource(supernode._pull_and_store_message)
    assert "get_fused_config_from_fab(fab.content, run_info)" in source


def test_flower_still_ends_a_node_where_ours_goes_on():
    """Else `client.flower.patience` can go."""
    import httpx
    from flwr.supercore.retry import make_simple_http_retry_invoker
    from flwr.supernode import fleet_http_connection as connection
    from flwr.supernode.cli.flower_supernode import _start_supernode_http_api

    theirs = make_simple_http_retry_invoker()
    request = httpx.Request("POST", "https://localhost")
    full = httpx.HTTPStatusError(
        "", request=request, response=httpx.Response(500, request=request)
    )
    assert theirs.should_giveup(full)
    assert theirs.should_giveup(httpx.ConnectError("EOF occurred: TLS/SSL"))
    source = inspect.getsource(connection.http_request_response)
    assert "HeartbeatSender(send_node_heartbeat)" in source
    assert "if exc.response.status_code in (502, 503, 504):" in source
    assert "with FleetHttpClient.from_server_address(" in source
    assert "log(ERROR, exc)" in source  # and then it returns, as if all were well
    source = inspect.getsource(_start_supernode_http_api)
    assert "threading.Thread(target=server.run, name=" in source  # which is no daemon


def test_a_chunk_that_arrived_before_the_line_broke_counts_as_stored(monkeypatch):
    import httpx
    from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
    from flwr.supernode.fleet_http_client import FleetHttpClient

    from client.flower.patience import CarefulClient

    answers = []

    def push(self, request):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return PushObjectResponse(stored=answer)

    monkeypatch.setattr(FleetHttpClient, "PushObject", push)
    client = CarefulClient("https://localhost:1")
    first = PushObjectRequest(session_id="s", object_id="1")
    other = PushObjectRequest(session_id="s", object_id="2")
    answers[:] = [httpx.ReadError("reset"), False, False]
    with pytest.raises(httpx.ReadError):
        client.PushObject(first)
    assert client.PushObject(first).stored
    assert not client.PushObject(other).stored  # that one cannot have arrived before
