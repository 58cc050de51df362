"""A hospital is removed: shut out, audited, named to its runs, and back only on purpose."""

import json

import pytest
from typer.testing import CliRunner

from server import place, runs
from server.cli import app
from server.kits import Kits
from server.launch import Launch
from server.membership import Membership
from server.provision import provision
from server.removal import remove
from server.runs import FINISHED, RUNNING
from server.status import gather
from server.supervisor import sync
from tests.provisioned import line
from tests.unit import status_example as example
from tests.unit.test_bad_moments import Engine
from vgmedgen.errors import ConfigError, StateError, TrustError
from vgmedgen.trust.journal import Journal

SITES = ("hospital-a", "hospital-b", "hospital-c")


@pytest.fixture
def kits(tmp_path):
    return example.provisioned(tmp_path, SITES)


def test_a_removed_site_is_shut_out_and_its_kit_left_alone(kits):
    before = (kits.folder / "hospital-b" / "site.yaml").read_bytes()
    key = kits.nodes()["hospital-b"]
    done = remove(kits, "hospital-b")
    assert done.had_key
    assert set(kits.nodes()) == {"hospital-a", "hospital-c"}
    assert kits.sites() == ["hospital-a", "hospital-c"]
    assert kits.removed() == {"hospital-b": key}
    assert (kits.folder / "hospital-b" / "site.yaml").read_bytes() == before
    assert done.kit == kits.folder / "hospital-b"
    last = Journal(kits.state / "audit.jsonl").entries()[-1]
    assert (last["event"], last["site"]) == ("remove", "hospital-b")
    assert len(last["node"]) == 64


def test_a_running_server_lets_its_node_go(kits):
    class Seen:
        def __init__(self, key):
            self.public_key, self.node_id = key, key[:8]

    engine = Engine()
    engine.known = [Seen(key) for key in kits.nodes().values()]
    key = kits.nodes()["hospital-b"]
    remove(kits, "hospital-b")
    sync(kits, engine)
    assert engine.unregistered == [key[:8]]
    assert engine.registered == []


def test_what_was_kept_of_its_node_is_forgotten(kits):
    for name in (place.NODES, place.SKEW):
        (kits.state / name).write_text(json.dumps({"hospital-b": {}, "hospital-a": {}}))
    remove(kits, "hospital-b")
    for name in (place.NODES, place.SKEW):
        assert json.loads((kits.state / name).read_text()) == {"hospital-a": {}}
    assert [node.site for node in gather(kits, None).nodes] == [
        "hospital-a",
        "hospital-c",
    ]


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_note_of_a_node_keeps_nobody_from_removing_it(kits, content):
    (kits.state / place.NODES).write_text(content)
    remove(kits, "hospital-b")
    assert (kits.state / place.NODES).read_text() == content


def test_runs_under_way_are_named_with_what_is_left_to_them(kits):
    example.prepared(kits, "going", state=RUNNING)
    example.prepared(kits, "over", state=FINISHED)
    damaged = example.prepared(kits, "damaged", state=RUNNING)
    (damaged / "state.json").write_text("{")
    first = remove(kits, "hospital-b")
    assert (first.going, first.short) == ({"going": 2}, ())
    second = remove(kits, "hospital-a")
    assert (second.going, second.short) == ({"going": 1}, ("going",))
    folder = runs.folder_of(kits.state, "going")
    launch = Launch.load(runs.launch_file(folder))
    assert Membership(launch).removed() == {"hospital-a", "hospital-b"}


def test_a_removed_site_comes_back_only_on_purpose(kits, tmp_path):
    old = (kits.folder / "hospital-b" / "node.pub").read_text()
    remove(kits, "hospital-b")
    with pytest.raises(ConfigError, match=r"was removed; .*--readmit"):
        kits.register("hospital-b", old)
    with pytest.raises(TrustError, match=r"two nodes with one key.*hospital-b's"):
        kits.register("hospital-a", old, replace=True)
    with pytest.raises(ConfigError, match="was removed"):
        provision(
            sites=["hospital-b"],
            host="127.0.0.1",
            port=8443,
            out=kits.folder,
            base=tmp_path / "base",
            make_keys=True,
        )
    assert "hospital-b" not in kits.nodes()
    kits.register("hospital-b", line(tmp_path, "new"), readmit=True)
    assert "hospital-b" in kits.nodes()
    assert kits.removed() == {}
    remove(kits, "hospital-b")
    kits.register("hospital-a", line(tmp_path, "other"), replace=True)
    assert set(kits.removed()) == {"hospital-b"}


def test_a_removal_that_was_cut_off_is_ended_by_doing_it_again(kits, monkeypatch):
    from server import kits as module

    written = module.write_text

    def full(path, text):
        if path.name == "nodes.json":
            raise StateError("the disk is full")
        written(path, text)

    monkeypatch.setattr(module, "write_text", full)
    with pytest.raises(StateError):
        remove(kits, "hospital-b")
    monkeypatch.undo()
    assert "hospital-b" in kits.nodes()
    remove(kits, "hospital-b")
    assert "hospital-b" not in kits.nodes()
    with pytest.raises(ConfigError, match="no kit for site 'hospital-b'"):
        remove(kits, "hospital-b")


def test_a_site_without_a_key_or_a_kit_can_be_removed_too(tmp_path):
    kits = example.provisioned(tmp_path, SITES, register=False)
    done = remove(kits, "hospital-a")
    assert not done.had_key
    assert kits.sites() == ["hospital-b", "hospital-c"]
    with pytest.raises(ConfigError, match="no kit for site 'hospital-x'"):
        remove(kits, "hospital-x")


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}'])
def test_a_damaged_list_is_named(kits, content):
    (kits.home / "removed.json").write_text(content)
    with pytest.raises(StateError, match=r"removed\.json is damaged"):
        kits.removed()


def test_the_command_asks_and_says_what_becomes_of_it(kits):
    example.prepared(kits, "going", state=RUNNING)
    words = ["remove", "hospital-b", "--kits", str(kits.folder)]
    assert CliRunner().invoke(app, words, input="n\n").exit_code == 1
    assert "hospital-b" in kits.nodes()
    told = CliRunner().invoke(app, [*words, "--yes"]).output
    assert "hospital-b is removed; its key is refused" in told
    assert "run going goes on without it, with 2 sites\n" in told
    assert "is left as it is" in told
    told = CliRunner().invoke(app, ["remove", "hospital-c", *words[2:], "--yes"]).output
    assert "with 1 sites, too few for a round" in told
    back = ["register", "hospital-b", str(kits.folder / "hospital-b/node.pub")]
    assert CliRunner().invoke(app, [*back, *words[2:]]).exit_code == 1
    done = CliRunner().invoke(app, [*back, *words[2:], "--readmit"])
    assert done.exit_code == 0, done.output
    assert "hospital-b" in Kits.open(kits.folder, serving=False).nodes()
