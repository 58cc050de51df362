"""`vgmedgen-server`: what a coordinator reads, and how it is refused."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from server import launching, looking, place, runs, supervisor
from server.cli import app
from server.kits import Kits
from server.looking import Looking
from tests.unit import status_example as example
from vgmedgen.cli.shared import run_cli
from vgmedgen.errors import (
    ConfigError,
    StateError,
    TrustError,
    UnreachableError,
    VGMedGenError,
)
from vgmedgen.trust import nodekeys
from vgmedgen.trust.journal import Journal

runner = CliRunner()
SITES = ("hospital-a", "hospital-b")


def ask(*words: object, code: int = 0) -> str:
    result = runner.invoke(app, [*map(str, words)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def kits(tmp_path):
    return example.provisioned(tmp_path, SITES)


@pytest.mark.parametrize(
    "verb",
    [
        ["provision"],
        ["register"],
        ["renew"],
        ["start"],
        ["run"],
        ["status"],
        ["stop"],
        ["publish"],
        ["audit", "verify"],
        ["audit", "show"],
    ],
)
def test_every_verb_has_help_with_an_example(verb):
    told = " ".join(ask(*verb, "--help").split())
    assert f"example: vgmedgen-server {' '.join(verb)}" in told


def test_help_imports_nothing_that_is_slow():
    slow = ("torch", "flwr", "monai", "numpy", "omegaconf", "starlette", "cryptography")
    code = (
        "import sys; from server.cli import app; "
        f"sys.exit(any(name in sys.modules for name in {slow}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_kits_are_made_a_key_is_registered_and_all_of_it_is_told(tmp_path):
    out, public = tmp_path / "new", tmp_path / "node.pub"
    example.provisioned(tmp_path)  # for its base bundle
    words = ["--host", "fl.example.org", "--base", tmp_path / "base", "--out", out]
    told = ask("provision", "--sites", "hospital-a, hospital-b", *words)
    for line in (f"{out}/hospital-a", f"{out}/coordinator", "certificate until 20"):
        assert line in told
    assert Kits.open(out).signing_key().public in told
    assert "next:" in told
    assert told.splitlines()[-1].startswith("  ")
    line = nodekeys.make(tmp_path / "node.key")
    public.write_text(line)
    told = ask("register", "hospital-a", public, "--kits", out)
    assert nodekeys.fingerprint(nodekeys.public_bytes(line)) in told
    assert list(Kits.open(out).nodes()) == ["hospital-a"]
    with pytest.raises(TrustError, match="two nodes with one key"):
        ask("register", "hospital-b", public, "--kits", out)
    assert "was there already" in ask("provision", "--sites", "hospital-a", *words)


def test_a_key_is_replaced_only_when_asked_to(kits, tmp_path):
    public = tmp_path / "node.pub"
    public.write_text(nodekeys.make(tmp_path / "node.key"))
    before = kits.nodes()
    words = ["register", "hospital-a", public, "--kits", kits.folder]
    with pytest.raises(TrustError, match="--replace"):
        ask(*words)
    assert kits.nodes() == before
    ask(*words, "--replace")
    assert kits.nodes()["hospital-b"] == before["hospital-b"]
    assert kits.nodes()["hospital-a"] != before["hospital-a"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"", b"ssh-rsa AAAA x"])
def test_a_key_file_that_is_none_is_one_line(kits, tmp_path, content):
    public = tmp_path / "node.pub"
    if content is not None:
        public.write_bytes(content)
    before = kits.nodes()
    with pytest.raises(VGMedGenError) as error:
        ask("register", "hospital-a", public, "--replace", "--kits", kits.folder)
    assert "\n" not in str(error.value)
    assert kits.nodes() == before


def test_a_new_certificate_is_told_with_its_end(kits):
    told = ask("renew", "--kits", kits.folder, "--days", 400)
    assert f"until {kits.expiries()['server']:%Y-%m-%d}" in told
    assert "restart" in told


def test_status_tells_nodes_and_runs_without_a_server(kits):
    example.prepared(kits, "demo-1", rounds=example.records(SITES, 2))
    told = ask("status", "--kits", kits.folder)
    for word in ("down", "hospital-a", "unknown", "demo-1", "running", "2 of 5"):
        assert word in told
    facts = json.loads(ask("status", "--kits", kits.folder, "--json"))
    assert facts["runs"][0]["run"] == "demo-1"
    assert facts["running"] is False
    with pytest.raises(ConfigError, match="choose one"):
        ask("status", "--kits", kits.folder, "--json", "--watch")
    with pytest.raises(ConfigError, match="needs a terminal"):
        ask("status", "--kits", kits.folder, "--watch")


def test_looking_finds_a_server_that_was_started_anew(kits, monkeypatch):
    made, closed, tokens = [], [], ["one"]

    class Control:
        def __init__(self, port, token):
            made.append((port, token))

        def nodes(self):
            return []

        def close(self):
            closed.append(True)

    monkeypatch.setattr("server.flower.Control", Control)
    with Looking(kits) as look:
        assert not look().running
        ports = place.Ports(public=1, admin=8444, page=0, pid=1)
        monkeypatch.setattr(looking.place, "ports", lambda _: ports)
        monkeypatch.setattr(looking.place, "token", lambda _: tokens[-1])
        assert look().running
        assert look().running
        tokens.append("two")
        assert look().running
        assert (made, len(closed)) == ([(8444, "one"), (8444, "two")], 1)

        def gone(_):
            raise UnreachableError("no server runs")

        monkeypatch.setattr(looking.place, "ports", gone)
        assert not look().running
    assert len(closed) == 2


def test_a_server_is_started_as_the_words_say(kits, monkeypatch):
    served = []
    monkeypatch.setattr(
        supervisor, "serve", lambda kits, **asked: served.append((kits.folder, asked))
    )
    ask("start", "--kits", kits.folder)
    ask(
        *("start", "--kits", kits.folder, "--port", 9443, "--listen", "127.0.0.1"),
        *("--page", "--json"),
    )
    assert served == [
        (kits.folder, {"port": None, "listen": None, "page": False, "as_json": False}),
        (
            kits.folder,
            {"port": 9443, "listen": "127.0.0.1", "page": True, "as_json": True},
        ),
    ]


def test_a_run_is_followed_line_by_line(kits, monkeypatch):
    asked = []

    def launch(kits, overrides, *, name, release_anyway):
        assert not release_anyway
        asked.append((kits.folder, overrides, name))
        return "demo-1"

    monkeypatch.setattr(launching, "launch", launch)
    monkeypatch.setattr(launching, "follow", lambda *_: iter(["round 1", "round 2"]))
    words = ["run", "--kits", kits.folder, "experiment=demo", "seed=1", "--name", "x"]
    assert ask(*words).splitlines() == ["round 1", "round 2"]
    assert asked == [(kits.folder, ["experiment=demo", "seed=1"], "x")]
    told = ask("run", "--kits", kits.folder, "--detach")
    assert "run demo-1 waits for its turn" in told
    assert asked[1:] == [(kits.folder, [], None)]


def test_ctrl_c_leaves_a_run_going_and_says_so(kits, monkeypatch):
    example.prepared(kits, "demo-1")

    def follow(*_):
        yield "round 1"
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "launch", lambda *_, **__: "demo-1")
    monkeypatch.setattr(launching, "follow", follow)
    told = ask("run", "--kits", kits.folder, code=130)
    assert "run demo-1 goes on" in told
    assert f"vgmedgen-server stop demo-1 --kits {kits.folder}" in told
    assert runs.read(runs.folder_of(kits.state, "demo-1")).state == runs.RUNNING


def test_a_failed_run_is_a_refusal(kits, monkeypatch):
    def follow(*_):
        yield "round 1"
        raise StateError("run demo-1 failed: too few sites [VG55]")

    monkeypatch.setattr(launching, "launch", lambda *_, **__: "demo-1")
    monkeypatch.setattr(launching, "follow", follow)
    with pytest.raises(StateError, match="too few sites"):
        ask("run", "--kits", kits.folder)


def test_a_run_without_a_server_is_one_line_and_exit_4(kits, capsys):
    def start() -> None:
        app(["run", "--kits", str(kits.folder)], standalone_mode=False)

    with pytest.raises(SystemExit) as left:
        run_cli(start, "vgmedgen-server")
    assert left.value.code == 4
    told = capsys.readouterr().err
    assert told.endswith("[VG75]\n")
    assert told.count("\n") == 1
    assert runs.runs_of(kits.state) == []


def test_a_run_is_stopped_and_one_that_is_not_there_is_named(kits):
    folder = example.prepared(kits, "demo-1")
    assert "demo-1 is stopped" in ask("stop", "demo-1", "--kits", kits.folder)
    assert runs.read(folder).state == runs.STOPPED
    with pytest.raises(StateError, match="demo-1"):
        ask("stop", "demo-2", "--kits", kits.folder)


def test_the_audit_log_is_shown_and_a_changed_line_is_found(kits):
    journal = Journal(kits.state / "audit.jsonl")
    before = len(journal.entries())
    journal.add("in", run="demo-1", round=1, site="hospital-a", bytes=12)
    journal.add("in", run="demo-2", round=1, site="hospital-b", bytes=13)
    told = ask("audit", "verify", "--kits", kits.folder)
    assert f"{before + 2} lines" in told
    assert journal.verify().hash in told
    shown = ask("audit", "show", "--kits", kits.folder, "--run", "demo-1")
    assert "run=demo-1" in shown
    assert len(shown.splitlines()) == 1
    lines = ask("audit", "show", "--kits", kits.folder, "--json").splitlines()
    assert [json.loads(line) for line in lines] == journal.entries()
    text = journal.path.read_text()
    journal.path.write_text(text.replace('"bytes": 12', '"bytes": 11'))
    with pytest.raises(StateError, match=r"audit\.jsonl"):
        ask("audit", "verify", "--kits", kits.folder)


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["renew"],
        ["start"],
        ["run"],
        ["stop", "demo-1"],
        ["audit", "verify"],
        ["audit", "show"],
    ],
)
def test_a_folder_that_holds_no_kits_is_refused_in_one_line(tmp_path, words):
    with pytest.raises(ConfigError, match="provision") as error:
        ask(*words, "--kits", tmp_path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_word_is_misuse():
    for words in (["provision"], ["register"], ["stop"], ["audit", "undo"], ["x"]):
        ask(*words, code=2)
