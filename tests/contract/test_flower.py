"""What we rely on in Flower; its API moves between minor versions."""

import importlib.metadata
import inspect
import subprocess
import sys
import threading

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SType
from flwr.server.superlink.fleet.vce import vce_api
from flwr.serverapp import ServerApp
from flwr.simulation.run_simulation import _run_simulation
from flwr.supercore.task_identity import TaskIdentity

from server import replies
from simulations import engine
from vgmedgen.errors import VGMedGenError
from vgmedgen.exchange import wire
from vgmedgen.exchange.schema import SITE_ERROR
from vgmedgen.exchange.wire import Kind


def test_the_version_is_the_one_that_all_this_was_read_in():
    assert importlib.metadata.version("flwr") == "1.41.0"


def test_the_backend_is_still_imported_where_it_is_replaced():
    source = inspect.getsource(vce_api.start_vce)
    assert "from .backend.raybackend import RayBackend" in source
    assert vce_api.__package__ + ".backend.raybackend" == engine.RAY_BACKEND


def test_the_backend_is_put_back(monkeypatch):
    monkeypatch.delitem(sys.modules, engine.RAY_BACKEND, raising=False)
    with engine.in_process():
        assert sys.modules[engine.RAY_BACKEND].RayBackend.func is engine.InProcess
    assert engine.RAY_BACKEND not in sys.modules
    before = object()
    monkeypatch.setitem(sys.modules, engine.RAY_BACKEND, before)
    with engine.in_process():
        pass
    assert sys.modules[engine.RAY_BACKEND] is before


def test_the_engine_still_takes_a_context_with_a_run_config():
    names = inspect.signature(_run_simulation).parameters
    assert {"server_app_context", "backend_name", "backend_config"} <= set(names)


def test_flowers_error_codes_mean_what_we_translate():
    codes = {n: v for n, v in vars(ErrorCode).items() if isinstance(v, int)}
    assert codes["MESSAGE_UNAVAILABLE"] == 3
    assert codes["REPLY_MESSAGE_UNAVAILABLE"] == 4
    assert codes["NODE_UNAVAILABLE"] == 5
    # Ours stays clear of all of theirs.
    assert max(codes.values()) < SITE_ERROR
    said = {code: replies.code_of(Error(code=code, reason="x")) for code in range(9)}
    assert said[3] == said[4] == "late"
    assert said[5] == "offline"
    assert said[2] == "FL02"
    assert replies.code_of(Error(code=SITE_ERROR, reason="VG50")) == "VG50"
    assert replies.code_of(Error(code=SITE_ERROR, reason="/data/x")) == "VG30"
    assert replies.code_of(Error(code=SITE_ERROR)) == "VG30"


def test_arrays_are_the_bytes_of_numpy():
    assert wire._NUMPY == SType.NUMPY


@pytest.fixture
def _server(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.mark.usefixtures("_server")
@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_message_is_one_that_flower_takes(kind):
    message = Message(RecordDict(), 7, str(kind), ttl=5.0, group_id="1")
    message.metadata.__dict__["_message_id"] = "m"
    reply = Message(Error(code=SITE_ERROR, reason="VG50"), reply_to=message)
    assert reply.metadata.reply_to_message_id == "m"
    assert reply.metadata.ttl <= 5.0
    assert not reply.has_content()


@pytest.mark.usefixtures("_server")
def test_app_level_mods_stand_around_every_handler():
    seen = []

    def mod(message, context, call_next):
        seen.append(message.metadata.message_type)
        return call_next(message, context)

    app = ClientApp(mods=[mod])
    for register in (app.train, app.evaluate, app.query):
        register()(lambda message, context: message)
    context = Context(
        run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={}
    )
    for kind in ("train", "evaluate", "query"):
        message = Message(RecordDict(), 7, kind)
        app(message, context)
    assert seen == ["train", "evaluate", "query"]


def test_importing_an_app_phones_nobody_and_loads_no_model():
    script = (
        "import sys, client.app, server.app; from flwr.supercore import telemetry;"
        "print(telemetry.FLWR_TELEMETRY_ENABLED, 'torch' in sys.modules,"
        " 'ray' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": ""},
    )
    assert told.stdout.split() == ["0", "False", "False"]


def server_that(does):
    app = ServerApp()

    @app.main()
    def main(grid, context):
        does(grid, context)

    return app


@pytest.mark.simulation
def test_what_a_server_app_raises_comes_out_as_it_was_raised():
    def fail(grid, context):
        assert context.run_config == {"a": 1}
        raise VGMedGenError("one clear line")

    with pytest.raises(VGMedGenError, match=r"^one clear line$"):
        engine.drive(server_that(fail), ClientApp(), sites=1, run_config={"a": 1})


@pytest.mark.simulation
def test_an_engine_that_gives_up_ends_the_server_app_too(monkeypatch):
    ended = threading.Event()

    def wait(grid, context):
        try:
            while True:
                list(grid.get_node_ids())
        finally:
            ended.set()

    def broken(self, app_fn):
        raise OSError("no workers today")

    monkeypatch.setattr(engine.InProcess, "build", broken)
    with pytest.raises(VGMedGenError, match="engine stopped"):
        engine.drive(server_that(wait), ClientApp(), sites=1, run_config={})
    assert ended.wait(timeout=300)
