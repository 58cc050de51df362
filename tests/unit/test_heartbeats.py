"""When a node was last heard, and when it is started again for the want of it."""

import os
import ssl
from types import SimpleNamespace

import httpx
import pytest

from client import heartbeats
from client.flower import patience
from client.heartbeats import Heartbeats, heard
from client.node import CONFIRMED
from client.preflight import folder as files
from client.preflight.finding import Caution
from client.preflight.place import Place
from vgmedgen.errors import UnreachableError
from vgmedgen.process.lock import only_one


@pytest.fixture
def clock(monkeypatch):
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(heartbeats.time, "monotonic", lambda: made.now)
    return made


@pytest.fixture
def kept(tmp_path, clock):
    (tmp_path / "node").mkdir()
    return Heartbeats(tmp_path / "node", after_s=300.0)


def test_a_node_is_started_again_only_after_a_time_without_confirmed_heartbeats(
    kept, clock
):
    clock.now += 290
    assert not kept.missed()
    kept.node_says("INFO flwr: Receiving: train message (ID: ab)")  # no heartbeat
    clock.now += 20
    assert kept.missed()
    kept.node_says(f"DEBUG client.flower.patience.beats: {CONFIRMED}")
    assert not kept.missed()


def test_restarts_that_do_not_help_become_rarer_until_one_does(kept, clock):
    pauses = []
    for _ in range(6):
        begun = clock.now
        while not kept.missed():
            clock.now += 10
        kept.give_longer()
        pauses.append(clock.now - begun)
    assert pauses == sorted(pauses)
    assert pauses[0] < 2 * 300 < pauses[2]
    assert pauses[-1] <= heartbeats.LONGEST_S + 10
    kept.node_says(CONFIRMED)
    clock.now += 310
    assert kept.missed()


def test_a_node_that_was_just_started_has_its_time(kept, clock):
    clock.now += 310
    kept.started()
    assert not kept.missed()
    assert kept.unheard_s == 310


def place(tmp_path):
    return Place(tmp_path)


def test_check_says_when_the_coordinator_last_heard_a_running_node(
    kept, clock, tmp_path
):
    with only_one(tmp_path / "node" / "lock", "a node"):
        clock.now += 20
        assert "started 20 s ago and is joining" in files.node(place(tmp_path))
        kept.node_says(CONFIRMED)
        clock.now += 30
        assert "the coordinator heard it 30 s ago" in files.node(place(tmp_path))
        clock.now += 100
        with pytest.raises(UnreachableError, match=r"not heard it since 20\d\d-"):
            files.node(place(tmp_path))
        (tmp_path / "node" / "heard.json").unlink()
        assert isinstance(files.node(place(tmp_path)), Caution)
    assert "none runs" in files.node(place(tmp_path))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"clock": "x", "since": 1, "at": ""}', "{"]
)
def test_a_file_that_cannot_be_read_says_nothing(tmp_path, content):
    (tmp_path / "heard.json").write_text(content)
    assert heard(tmp_path) is None


def test_a_full_disk_does_not_end_the_supervisor(tmp_path, clock, caplog):
    missing = tmp_path / "a file"
    missing.write_text("")
    kept = Heartbeats(missing)
    kept.node_says(CONFIRMED)
    assert not kept.missed()
    assert "cannot write" in caplog.text


def status(number):
    request = httpx.Request("POST", "https://localhost")
    try:
        httpx.Response(number, request=request).raise_for_status()
    except httpx.HTTPStatusError as error:
        return error


def over_tls(error):
    try:
        try:
            raise error
        except ssl.SSLError as cause:
            raise httpx.ConnectError(str(cause)) from cause
    except httpx.ConnectError as made:
        return made


LATER = [
    *(status(number) for number in (408, 429, 500, 502, 503, 507)),
    httpx.ReadError("reset"),
    httpx.ProxyError("503"),
    httpx.RemoteProtocolError("server disconnected"),
    over_tls(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")),
    over_tls(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")),
]
FINAL = [
    *(status(number) for number in (400, 404, 412)),
    over_tls(ssl.SSLCertVerificationError(1, "certificate verify failed")),
]


@pytest.mark.parametrize("error", LATER, ids=str)
def test_what_passes_is_tried_again(error, monkeypatch):
    invoker = quick(monkeypatch)
    tries = []

    def call():
        tries.append(1)
        if len(tries) < 4:
            raise error
        return "done"

    assert invoker.invoke(call) == "done"


@pytest.mark.parametrize("error", FINAL, ids=str)
def test_what_does_not_pass_is_not_tried_again(error, monkeypatch):
    tries = []

    def call():
        tries.append(1)
        raise error

    with pytest.raises(type(error)):
        quick(monkeypatch).invoke(call)
    assert tries == [1]


def test_a_run_that_has_ended_is_still_told_by_403(monkeypatch):
    from flwr.supercore.run import RunNotRunningException

    def call():
        raise status(403)

    with pytest.raises(RunNotRunningException):
        quick(monkeypatch).invoke(call)


def test_a_call_is_not_tried_for_ever(monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_S", 0.0)

    def call():
        raise status(500)

    with pytest.raises(httpx.HTTPStatusError):
        quick(monkeypatch).invoke(call)


def quick(monkeypatch):
    """What repeats a node's calls, without its pauses."""
    from flwr.supercore.retry import make_simple_http_retry_invoker

    made = patience.patient(make_simple_http_retry_invoker)()
    monkeypatch.setattr(made, "wait_function", lambda _: None)
    return made


def beating(results):
    def send():
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return patience.ConfirmedHeartbeats(send)


def test_a_heartbeat_that_is_answered_by_an_error_is_sent_again(monkeypatch, caplog):
    signals = []
    monkeypatch.setattr(patience.os, "kill", lambda *words: signals.append(words))
    caplog.set_level("DEBUG", patience.beats.name)
    beats = beating([status(500), ValueError("no protobuf"), False, True])
    assert [beats._beat() for _ in range(4)] == [False, False, False, True]
    assert caplog.text.count(CONFIRMED) == 1
    assert "HTTP status 500" in caplog.text
    assert not signals


def test_a_node_that_is_unknown_now_ends_and_joins_anew(monkeypatch):
    signals = []
    monkeypatch.setattr(patience.os, "kill", lambda *words: signals.append(words))
    beats = beating([RuntimeError("does not recognize"), status(404), status(401)])
    assert [beats._beat() for _ in range(3)] == [False, False, False]
    assert [pid for pid, _ in signals] == 2 * [os.getpid()]  # after 401 Flower does so
