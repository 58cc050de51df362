"""How many threads torch is given, and how they wait: trees of groups, real processes."""

import os
import subprocess
import sys

import pytest

from vgmedgen.process import threads

ASK = (
    "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}) if %r else None\n"
    "from vgmedgen.process import environment; environment.settle()\n"
    "import torch; print(torch.get_num_threads(), os.environ.get('OMP_WAIT_POLICY'))"
)


def tree(folder, own, files):
    """A /proc/self/cgroup and a mount of groups, as the kernel would show them."""
    for name, text in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(text + "\n", encoding="utf-8")
    (folder / "own").write_text(own, encoding="utf-8")
    return threads.quota(folder / "own", folder / "cgroup")


V1 = "4:memory:/a\n3:cpuset:/\n2:cpuacct,cpu:/docker/7f\n1:name=systemd:/docker/7f\n"


@pytest.mark.parametrize(
    ("own", "files", "allowed"),
    [
        ("0::/\n", {"cpu.max": "250000 100000"}, 2.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {}, None),
        # a service below a slice: the least of the groups holds
        (
            "0::/system.slice/node.service\n",
            {
                "system.slice/cpu.max": "400000 100000",
                "system.slice/node.service/cpu.max": "max 100000",
            },
            4.0,
        ),
        # in a container without a namespace of groups the path is the host's
        ("0::/docker/7f\n", {"cpu.max": "150000 100000"}, 1.5),
        (
            V1,
            {
                "cpuacct,cpu/docker/7f/cpu.cfs_quota_us": "300000",
                "cpuacct,cpu/docker/7f/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        (V1, {"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "0"}, None),
        ("", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_a_quota_is_read_from_both_versions_of_groups(tmp_path, own, files, allowed):
    assert tree(tmp_path, own, files) == allowed


def test_a_machine_without_groups_has_no_quota(tmp_path):
    assert threads.quota(tmp_path / "own", tmp_path) is None


def test_two_threads_of_one_core_count_once(tmp_path):
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        file = tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        file.write_text(siblings, encoding="utf-8")
    assert threads.cores({0, 1, 2, 3}, tmp_path) == 2
    assert threads.cores({0, 2}, tmp_path) == 1
    assert threads.cores({0, 1, 9}, tmp_path) == 3  # one that tells nothing


@pytest.mark.parametrize(
    ("share", "count"), [(None, 4), (8.0, 4), (2.9, 2), (1.5, 1), (0.2, 1)]
)
def test_no_more_threads_than_can_run_at_once(monkeypatch, share, count):
    monkeypatch.setattr(threads, "quota", lambda: share)
    monkeypatch.setattr(threads, "cpus", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(threads, "cores", len)
    assert threads.usable() == count


@pytest.mark.parametrize("name", [*threads.COUNTS, *threads.WAITS])
def test_what_a_user_said_stands(name):
    env = {name: "3"}
    threads.settle(env)
    assert env[name] == "3"
    assert (threads.THREADS in env) == (name not in threads.COUNTS[1:])
    assert (threads.WAIT in env) == (name not in threads.WAITS[1:])


def test_processes_side_by_side_share_the_cores_unless_a_user_said_how(monkeypatch):
    monkeypatch.setattr(threads, "_settled", set())
    assert threads.of_each(2, {threads.THREADS: "5"}) == {}
    env = {}
    threads.settle(env)
    assert threads.of_each(2, env) == {threads.THREADS: "2"}
    assert threads.of_each(0, env) == {threads.THREADS: "1"}


def asked(*, pinned, **env):
    """Threads of a fresh torch, and how they wait."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "MKL"))}
    done = subprocess.run(
        [sys.executable, "-c", ASK % pinned],
        env=kept | env,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores"
)
def test_torch_takes_as_many_threads_as_it_may_use_cores_and_they_sleep():
    assert asked(pinned=True) == ["1", "PASSIVE"]
    told = asked(pinned=True, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="ACTIVE")
    assert told == ["2", "ACTIVE"]
