"""What the two supervisors refuse before they start anything."""

import json
import os
import socket
import sqlite3

import pytest
from omegaconf import OmegaConf

from client.supervisor import KEY_TAKEN_S, check_deployable, pause_of, prepare
from server import place, runs, startup, supervisor
from server.process import Strangers, skew_line
from vgmedgen.errors import ConfigError, StateError, UnreachableError
from vgmedgen.process.lock import only_one
from vgmedgen.site.config import load_config


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            StateError, match=rf"127\.0\.0\.1 port {port}.*another port"
        ):
            startup.check_port("127.0.0.1", port)
    startup.check_port("127.0.0.1", port)


def test_an_address_that_is_not_this_machines_is_named():
    with pytest.raises(StateError, match=r"203\.0\.113\.77"):
        startup.check_port("203.0.113.77", 8443)


def test_a_locked_database_is_named(tmp_path):
    path = tmp_path / "superlink.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("CREATE TABLE t (n)")
    startup.check_database(path)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateError, match=r"superlink\.db cannot be used.*locked"):
        startup.check_database(path)
    holder.close()
    startup.check_database(path)


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path):
    path = tmp_path / "superlink.db"
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(StateError, match="is damaged"):
        startup.check_database(path)
    assert path.read_bytes().startswith(b"not a database")


def test_the_secrets_of_a_start_are_new_and_its_own_users(tmp_path):
    state = tmp_path / "state"
    place.prepare(state)
    first = place.token(state), place.secret(state)
    assert len(set(first)) == 2
    for name in (place.TOKEN, place.SECRET):
        assert (state / name).stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o700
    place.prepare(state)
    assert not {place.token(state), place.secret(state)} & set(first)


def test_where_a_server_listens_is_told_only_while_it_runs(tmp_path):
    ports = place.Ports(public=1, admin=2, page=0, pid=3)
    place.say(tmp_path, ports)
    with pytest.raises(UnreachableError, match="no server runs"):
        place.ports(tmp_path)
    with only_one(tmp_path / place.LOCK, "a server"):
        assert place.ports(tmp_path) == ports


def test_a_run_whose_player_ends_again_and_again_is_given_up(tmp_path):
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    for attempt in range(1, supervisor.MOST_ATTEMPTS + 1):
        runs.write(folder, runs.RUNNING, engine="1", attempts=attempt)
        supervisor.requeue(folder, runs.read(folder))
        last = attempt == supervisor.MOST_ATTEMPTS
        assert runs.read(folder).state == (runs.FAILED if last else runs.QUEUED)
    assert "ended 25 times" in runs.read(folder).why


def test_a_run_that_gets_on_may_be_cut_off_as_often_as_it_likes(tmp_path):
    import time

    folder = tmp_path / "runs" / "demo"
    (folder / "rounds").mkdir(parents=True)
    last = supervisor.MOST_ATTEMPTS
    runs.write(folder, runs.RUNNING, engine="1", attempts=last)
    record = folder / "rounds" / "0001.json"
    record.write_text("{}")
    os.utime(record, (time.time() + 2, time.time() + 2))
    supervisor.requeue(folder, runs.read(folder))
    assert (runs.read(folder).state, runs.read(folder).attempts) == (runs.QUEUED, 0)


def test_an_attempt_that_was_overtaken_does_not_say_how_a_run_stands(tmp_path):
    runs.write(tmp_path, runs.RUNNING, engine="2", attempts=2)
    runs.end(tmp_path, "1", runs.FAILED, why="late")
    assert runs.read(tmp_path).state == runs.RUNNING
    runs.write(tmp_path, runs.STOPPED, engine="2", attempts=2)
    runs.end(tmp_path, "2", runs.FINISHED)
    assert runs.read(tmp_path).state == runs.STOPPED


def test_a_state_that_cannot_be_read_is_named(tmp_path):
    for content in ("", "{", json.dumps({"state": "queued"}), "[]"):
        (tmp_path / "state.json").write_text(content)
        with pytest.raises(StateError, match=r"state\.json is missing or damaged"):
            runs.read(tmp_path)


def test_strangers_are_told_of_now_and_then(caplog):
    hear = Strangers(every_s=3600)
    for number in range(5):
        hear("203.0.113.9", f"/docs\n{number}", 404)
    assert len(caplog.records) == 1
    line = caplog.records[0].getMessage()
    assert "refused 1 requests" in line
    assert "\n" not in line


def test_a_skewed_clock_is_told_with_its_seconds_and_its_way():
    assert "hospital-b is 412 s ahead of" in skew_line("hospital-b", 412.3)
    assert "refused" in skew_line("hospital-b", 412.3)
    assert "hospital-b is 41 s behind" in skew_line("hospital-b", -41.0)
    assert "still gets in" in skew_line("hospital-b", -41.0)


def site(folder, **keys):
    base = {
        "name": "hospital-a",
        "base": "/models/base",
        "sources": [{"dataset": "table", "root": "x.csv"}],
    }
    OmegaConf.save(OmegaConf.create(base | keys), folder / "site.yaml")
    return load_config(folder / "site.yaml")


def test_a_node_serves_only_a_coordinator_that_it_trusts(tmp_path):
    with pytest.raises(ConfigError, match=r"coordinator\.address"):
        check_deployable(site(tmp_path))
    told = {"address": "fl.example.org:8443"}
    with pytest.raises(ConfigError, match=r"policy\.coordinators"):
        check_deployable(site(tmp_path, coordinator=told))
    check_deployable(
        site(tmp_path, coordinator=told, policy={"coordinators": ["0" * 64]})
    )


def test_a_node_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "node").write_text("a file")
    with pytest.raises(StateError, match="cannot write"):
        prepare(tmp_path / "node")


def test_a_key_that_is_still_held_for_online_is_waited_for():
    assert pause_of("… [code: 2004] Failed to activate", 1.0) == KEY_TAKEN_S
    assert pause_of("something else", 4.0) == 4.0


def test_a_site_yaml_that_is_a_list_is_refused_in_one_line(tmp_path):
    path = tmp_path / "site.yaml"
    for content in ("- 1\n", "x\n", "a: [\n", "\x00"):
        path.write_text(content)
        with pytest.raises(ConfigError) as error:
            load_config(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
