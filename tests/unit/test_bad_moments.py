"""The coordinator's server at bad moments: kills, lost files, full disks, refusals."""

import os
import threading
from itertools import pairwise
from types import SimpleNamespace

import httpx
import pytest
from typer.testing import CliRunner

from server import launching, place, runs, supervisor
from server.cli import app
from server.flower import Task
from server.flower.reaching import reaching
from vgmedgen.errors import StateError, UnreachableError
from vgmedgen.trust.journal import Journal


class Engine:
    """A SuperLink that does as it is told, or fails as it is told."""

    def __init__(self):
        self.started, self.stopped, self.over = [], [], set()
        self.registered, self.unregistered = [], []
        self.known = []
        self.meanwhile = lambda: None  # between the start of a run and its end
        self.error = None

    def _answer(self):
        if self.error is not None:
            raise self.error

    def nodes(self):
        self._answer()
        return self.known

    def register(self, site, key):
        if key == "refused":
            raise StateError(f"the key of {site} cannot be registered: 409")
        self.registered.append(site)

    def unregister(self, node_id):
        self.unregistered.append(node_id)

    def start(self, run):
        self._answer()
        self.started.append(run)
        self.meanwhile()
        return str(100 + len(self.started))

    def stop(self, engine):
        self._answer()
        self.stopped.append(engine)

    def ended(self, engine):
        self._answer()
        return "over" if engine in self.over else None


class Played:
    """A player that runs until it is told otherwise."""

    def __init__(self, *_, **__):
        self.running, self.lines = False, []

    def start(self):
        self.running = True

    def stop(self):
        self.running = False


@pytest.fixture
def serving(tmp_path, monkeypatch):
    """A server whose SuperLink is an `Engine`, and the tasks that it hands out."""
    state = tmp_path / "state"
    place.prepare(state)
    config = SimpleNamespace(page_port=3, admin_port=2)
    nodes = {"hospital-a": "aa"}
    kits = SimpleNamespace(
        state=state, config=config, folder=tmp_path, nodes=lambda: nodes
    )
    tasks = []
    monkeypatch.setattr(
        supervisor.flower, "acquire", lambda *_: tasks.pop() if tasks else None
    )
    monkeypatch.setattr(supervisor, "Child", Played)
    monkeypatch.setattr(supervisor, "SYNC_S", -1.0)
    server = supervisor.Server(kits, port=1, listen="127.0.0.1", page=False)
    engine = Engine()

    def turn():
        server._trouble._due = 0.0
        server._trouble.attempt(lambda: server._turn(engine))

    return SimpleNamespace(
        server=server, engine=engine, tasks=tasks, kits=kits, turn=turn, state=state
    )


def run_in(state, name, word="", **facts):
    """A run whose launch file is there; without a state if there is no word."""
    folder = runs.folder_of(state, name)
    runs.launch_file(folder).parent.mkdir(parents=True)
    runs.launch_file(folder).write_text("{}")
    if word:
        runs.write(folder, word, **facts)
    return folder


def test_a_run_is_started_played_and_started_again_if_it_is_cut_off(serving):
    folder = run_in(serving.state, "demo", runs.QUEUED)
    serving.turn()
    assert runs.read(folder).state == runs.RUNNING
    serving.tasks.append(Task(token="t", engine="101"))  # noqa: S106
    serving.turn()
    assert serving.server._player.running
    serving.server._player.running = False
    serving.turn()
    assert runs.read(folder).engine == "102"
    assert runs.read(folder).attempts == 2
    assert serving.engine.stopped == ["101"]


@pytest.mark.parametrize("left", ["", "{", "[]", '{"state": "paused", "at": "x"}'])
def test_a_run_without_a_state_is_told_of_once_and_others_go_on(serving, caplog, left):
    bad = run_in(serving.state, "bad")
    if left:
        (bad / "state.json").write_text(left)
    good = run_in(serving.state, "good", runs.QUEUED)
    for _ in range(4):
        serving.turn()
    assert runs.read(good).state == runs.RUNNING
    told = [r.getMessage() for r in caplog.records if "bad" in r.getMessage()]
    assert len(told) == 1
    assert "state.json" in told[0]
    serving.server._player, serving.server._playing = Played(), "101"
    serving.turn()  # its player ended, and the bad run is still there
    assert runs.read(good).attempts == 2


def test_a_task_that_no_run_waits_for_is_stopped_and_not_played(serving):
    run_in(serving.state, "stopped", runs.STOPPED, engine="7", attempts=1)
    run_in(serving.state, "bad")
    running = run_in(serving.state, "running", runs.RUNNING, engine="8", attempts=1)
    serving.server._taken_up = True
    for engine in ("7", "9"):
        serving.tasks.append(Task(token="t", engine=engine))  # noqa: S106
        serving.turn()
        assert serving.server._player is None
    assert serving.engine.stopped == ["7", "9"]
    serving.tasks.append(Task(token="t", engine="8"))  # noqa: S106
    serving.turn()
    assert serving.server._player.running
    assert runs.read(running).engine == "8"


def test_a_stop_while_a_run_is_being_started_stands(serving):
    folder = run_in(serving.state, "demo", runs.QUEUED)
    serving.engine.meanwhile = lambda: launching.stop(serving.kits, "demo")
    serving.turn()
    assert runs.read(folder).state == runs.STOPPED
    assert serving.engine.stopped == ["101"]
    serving.turn()
    assert serving.engine.started == ["demo"]


def test_a_start_that_cannot_be_written_down_leaves_no_engine(serving, monkeypatch):
    folder = run_in(serving.state, "demo", runs.QUEUED)

    def full(*_):
        raise StateError("cannot write: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_text", full)
        serving.turn()
    assert serving.engine.stopped == ["101"]
    assert runs.read(folder).state == runs.QUEUED
    serving.turn()
    assert runs.read(folder).engine == "102"


def test_a_run_that_flower_gave_up_before_it_was_played_goes_on(serving):
    folder = run_in(serving.state, "demo", runs.RUNNING, engine="8", attempts=1)
    serving.server._taken_up = True
    serving.engine.over.add("8")
    serving.turn()
    assert runs.read(folder).attempts == 2
    assert runs.read(folder).engine == "101"


def test_a_player_that_ends_while_the_superlink_is_away_is_not_forgotten(serving):
    folder = run_in(serving.state, "demo", runs.RUNNING, engine="8", attempts=1)
    serving.server._taken_up = True
    serving.server._player, serving.server._playing = Played(), "8"
    serving.engine.error = UnreachableError("gone")
    serving.turn()
    assert runs.read(folder).state == runs.RUNNING
    serving.engine.error = None
    serving.turn()
    assert runs.read(folder).attempts == 2


@pytest.mark.parametrize(
    "error",
    [
        StateError("nodes.json is damaged"),
        UnreachableError("503"),
        OSError(28, "No space left on device"),
    ],
)
def test_a_server_outlives_what_does_not_work_and_says_it_once(serving, caplog, error):
    caplog.set_level("INFO")
    folder = run_in(serving.state, "demo", runs.QUEUED)
    serving.engine.error = error
    for _ in range(5):
        serving.turn()
    told = [r for r in caplog.records if "tries again" in r.getMessage()]
    assert len(told) == 1
    assert runs.read(folder).state == runs.QUEUED
    serving.engine.error = None
    serving.turn()
    assert runs.read(folder).state == runs.RUNNING
    assert "does again" in caplog.text


def test_what_fails_is_not_tried_at_every_tick(monkeypatch):
    trouble, tries, now = supervisor.Trouble(), [], [0.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])

    def work():
        tries.append(now[0])
        raise StateError("no")

    while now[0] < 60:
        trouble.attempt(work)
        now[0] += supervisor.TICK_S
    gaps = [late - early for early, late in pairwise(tries)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == supervisor.LONGEST_PAUSE_S
    assert len(tries) < 15


def test_a_key_that_is_refused_keeps_no_other_node_out_and_none_in(serving):
    kits = SimpleNamespace(nodes=lambda: {"a": "refused", "b": "bb"})
    serving.engine.known = [SimpleNamespace(node_id=5, public_key="gone")]
    with pytest.raises(StateError, match="the key of a"):
        supervisor.sync(kits, serving.engine)
    assert serving.engine.registered == ["b"]
    assert serving.engine.unregistered == [5]


def test_a_lost_state_is_mended_by_starting_the_run_again(tmp_path):
    folder = run_in(tmp_path, "demo")
    for left in (None, "{"):
        if left is not None:
            (folder / "state.json").write_text(left)
        launching._go_on(folder)
        assert runs.read(folder).state == runs.QUEUED
    runs.write(folder, runs.FINISHED)
    with pytest.raises(StateError, match="is finished"):
        launching._go_on(folder)
    assert runs.read(folder).state == runs.FINISHED


def test_changes_by_many_at_once_are_all_kept(tmp_path):
    runs.write(tmp_path, runs.RUNNING, engine="1")

    def count():
        for _ in range(20):
            runs.change(
                tmp_path,
                lambda now: runs.made(now.state, engine="1", attempts=now.attempts + 1),
            )

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs.read(tmp_path).attempts == 80


def test_a_run_that_was_stopped_meanwhile_is_not_queued_again(tmp_path):
    runs.write(tmp_path, runs.RUNNING, engine="1", attempts=1)
    seen = runs.read(tmp_path)
    runs.write(tmp_path, runs.STOPPED, engine="1", attempts=1)
    supervisor.requeue(tmp_path, seen)
    assert runs.read(tmp_path).state == runs.STOPPED


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, StateError),
        (404, StateError),
        (500, UnreachableError),
        (503, UnreachableError),
        (None, UnreachableError),
    ],
)
def test_a_superlink_that_fails_may_work_later_and_one_that_refuses_not(status, kind):
    request = httpx.Request("POST", "http://127.0.0.1")
    error = httpx.ReadTimeout("slow")
    if status is not None:
        response = httpx.Response(status, text="database is\nlocked", request=request)
        error = httpx.HTTPStatusError("", request=request, response=response)
    with pytest.raises(kind) as told, reaching():
        raise error
    assert type(told.value) is kind
    assert "\n" not in str(told.value)


def test_what_a_verb_writes_is_its_users_alone(tmp_path, monkeypatch):
    before = os.umask(0o022)
    try:

        def register(_kits, name):
            Journal(tmp_path / "made" / "audit.jsonl").add("stop", pid=1)
            runs.write(tmp_path / "runs" / "demo", runs.QUEUED)

        monkeypatch.setattr("server.kits.Kits.open", lambda *_, **__: None)
        monkeypatch.setattr(launching, "stop", register)
        told = CliRunner().invoke(app, ["stop", "demo"])
        assert told.exit_code == 0, told.output
        assert os.umask(0o022) == 0o022  # as it was: others share this process
    finally:
        os.umask(before)
    found = [path for path in tmp_path.rglob("*") if path != tmp_path]
    assert {"state.json", "runs", "audit.head"} <= {path.name for path in found}
    for path in found:
        assert path.stat().st_mode & 0o077 == 0, path
