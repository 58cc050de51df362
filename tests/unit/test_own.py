"""What neither a node nor a server starts with: links, open doors, a changed log."""
# ruff: noqa: F401, F811 - fixtures are imported by name

import os
import shutil
from pathlib import Path

import pytest

from client import supervisor as node
from client.preflight import examine
from client.preflight.folder import FIXED
from server.startup import check_own
from server.supervisor import serve
from tests.preflights import images, kit, no_proxy, of, site
from tests.unit import status_example as example
from vgmedgen.errors import ConfigError, StateError, TrustError
from vgmedgen.process.lock import only_one
from vgmedgen.trust.journal import Journal

FOREIGN = 0o750  # of a folder of somebody else


@pytest.fixture
def foreign(tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir(mode=FOREIGN)
    folder.chmod(FOREIGN)
    return folder


def untouched(folder):
    return folder.stat().st_mode & 0o777 == FOREIGN and not list(folder.iterdir())


@pytest.mark.parametrize("name", ["node", "approvals", "turns", "dry-run"])
def test_a_node_does_not_follow_a_link_in_a_kit_to_a_folder(site, foreign, name):
    (site / name).symlink_to(foreign)
    with pytest.raises(TrustError, match=f"{name} is a link"):
        node.serve(site)
    assert untouched(foreign)
    found = of(examine(site, quick=True))
    assert not found["folder"].ok
    assert "is a link" in found["folder"].told


@pytest.mark.parametrize("name", [n for n in FIXED if "." in n or "/" in n])
def test_a_node_does_not_follow_a_link_in_a_kit_to_a_file(site, tmp_path, name):
    theirs = tmp_path / "theirs"
    (site / "node").mkdir(mode=0o700)
    if name == "site.yaml":
        shutil.move(site / name, theirs)
    else:
        theirs.write_text("theirs")
    before = theirs.read_bytes()
    (site / name).symlink_to(theirs)
    with pytest.raises(TrustError, match=f"{name} is a link"):
        node.serve(site)
    assert theirs.read_bytes() == before


@pytest.mark.parametrize("name", ["cache", "runs", "releases"])
def test_what_is_large_may_lie_on_another_disk(site, foreign, name):
    (site / name).symlink_to(foreign)
    assert of(examine(site, quick=True))["folder"].ok


def test_no_command_writes_a_log_or_a_lock_through_a_link(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("")
    (tmp_path / "audit.jsonl").symlink_to(theirs)
    with pytest.raises(StateError):
        Journal(tmp_path / "audit.jsonl").add("start")
    (tmp_path / "lock").symlink_to(theirs)
    with pytest.raises(StateError), only_one(tmp_path / "lock", "it"):
        pass
    assert theirs.read_text() == ""


@pytest.mark.parametrize(
    ("name", "mode"), [("site.yaml", 0o666), (".", 0o777), ("audit.jsonl", 0o602)]
)
def test_a_node_does_not_start_on_what_everybody_may_change(site, name, mode):
    Journal(site / "audit.jsonl").add("start")
    (site / name).chmod(mode)
    with pytest.raises(TrustError, match="everybody on this machine may change"):
        node.serve(site)
    found = of(examine(site, quick=True))
    assert not all(one.ok for one in found.values())
    told = " ".join(one.told for one in found.values())
    assert "everybody on this machine may change" in told


def test_a_policy_that_its_group_may_change_is_a_warning(site):
    (site / "site.yaml").chmod(0o660)
    found = of(examine(site, quick=True))["site.yaml"]
    assert found.ok
    assert found.warning
    assert "its group may change it" in found.told


def test_a_node_does_not_start_where_others_look_into_its_folder(site):
    (site / "node").mkdir()
    (site / "node").chmod(0o777)
    with pytest.raises((StateError, TrustError), match="node"):
        node.serve(site)
    (site / "node").chmod(0o755)
    with pytest.raises(StateError, match=r"others can look into .*mode 755"):
        node.serve(site)
    assert (site / "node").stat().st_mode & 0o777 == 0o755


def changed_line(path):
    journal = Journal(path)
    for _ in range(3):
        journal.add("start", pid=1)
    text = path.read_text().replace('"pid": 1', '"pid": 2', 1)
    path.write_text(text)


def test_a_node_does_not_start_on_a_changed_audit_log(site):
    changed_line(site / "audit.jsonl")
    with pytest.raises(ConfigError, match=r"audit log: .*line 1"):
        node.serve(site)


def test_a_node_does_not_start_on_a_ledger_that_is_gone(site):
    (site / "runs" / "demo-1" / "round-0001").mkdir(parents=True)
    with pytest.raises(ConfigError, match="ledger: "):
        node.serve(site)


@pytest.fixture
def kits(tmp_path):
    return example.provisioned(tmp_path / "coordinator")


def test_a_server_does_not_follow_a_link_in_place_of_its_state(kits, foreign):
    shutil.rmtree(kits.state)
    kits.state.symlink_to(foreign)
    with pytest.raises(TrustError, match="state is a link"):
        serve(kits)
    assert untouched(foreign)


@pytest.mark.parametrize("name", ["audit.jsonl", "lock", "superlink.db", "nodes.json"])
def test_a_server_does_not_follow_a_link_in_its_state(kits, tmp_path, name):
    theirs = tmp_path / "theirs"
    theirs.write_text("")
    (kits.state / name).unlink(missing_ok=True)
    (kits.state / name).symlink_to(theirs)
    with pytest.raises(TrustError, match=f"{name} is a link"):
        serve(kits)
    assert theirs.read_text() == ""


@pytest.mark.parametrize("name", ["coordinator.yaml", "nodes.json", "state"])
def test_a_server_does_not_start_on_what_everybody_may_change(kits, name):
    path: Path = kits.home / name
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(TrustError, match=f"may change .*{name}"):
        serve(kits)


def test_a_server_does_not_start_on_a_changed_audit_log(kits):
    changed_line(kits.state / "audit.jsonl")
    with pytest.raises(StateError, match=r"line \d was changed"):
        serve(kits)


def test_what_a_crash_left_of_a_log_keeps_no_server_down(kits):
    path = kits.state / "audit.jsonl"
    with path.open("a") as stream:
        stream.write('{"n": 9')
    check_own(kits.home, kits.state)
    assert os.access(path, os.W_OK)
