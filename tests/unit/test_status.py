"""How nodes and runs stand: read from files and server, told in a terminal."""

import io
import json
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from flwr.app import Error
from flwr.common.constant import ErrorCode
from rich.console import Console

from server.replies import LATE, OFFLINE, code_of
from server.standing import ABSENT, TOOK, UNKNOWN, part_of
from server.status import gather, notes, to_json
from server.view import render
from server.words import ago, clean, how_long
from tests.unit import status_example as example
from vgmedgen.codes import CODES, advice, meaning, short
from vgmedgen.errors import StateError, UnreachableError, VGMedGenError
from vgmedgen.files import tree_digests

SITES = ("hospital-a", "hospital-b", "hospital-c")
NOW = datetime.now(UTC)


@dataclass
class Seen:
    node_id: int
    public_key: str
    online: bool
    last_seen: datetime | None


class Server:
    """What a running server says; an error is raised instead."""

    def __init__(self, *nodes, error=None):
        self._nodes, self._error = nodes, error

    def nodes(self):
        if self._error:
            raise self._error
        return list(self._nodes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return example.provisioned(tmp_path_factory.mktemp("kits"), SITES)


@pytest.fixture
def kits(made, tmp_path):
    """Kits of three registered sites, whose state a test may write."""
    made.state = tmp_path / "state"
    made.state.mkdir()
    return made


@pytest.fixture
def busy(kits):
    """The same with a run of five rounds, three of them done."""
    done = example.records(SITES, 3)
    left = replace(done[1], sites=list(SITES[:2]), left_out={SITES[2]: "VG42"})
    example.prepared(kits, "demo-1", rounds=(done[0], left, done[2]))
    return kits


def shown(status, width=120):
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    console.print(render(status))
    return console.file.getvalue()


def every_code():
    kinds, found = [VGMedGenError], set()
    while kinds:
        kind = kinds.pop()
        found.add(kind.code)
        kinds += kind.__subclasses__()
    return found


def test_every_code_of_ours_has_a_meaning():
    assert every_code() <= CODES.keys()
    assert {LATE, OFFLINE} <= CODES.keys()
    assert len(every_code()) > 12
    # and a word for the audit log of whoever refuses under it, each its own
    words = [CODES[code].why for code in sorted(every_code())]
    assert all(words)
    assert len(set(words)) == len(words)


def test_every_code_that_flower_may_answer_with_has_a_meaning():
    numbers = [value for name, value in vars(ErrorCode).items() if name.isupper()]
    assert len(numbers) >= 9
    for number in numbers:
        assert code_of(Error(code=number, reason="")) in CODES


def test_meanings_are_short_and_cells_are_distinct():
    assert all(0 < len(meaning(code)) <= 60 for code in CODES)
    assert all(len(advice(code)) <= 60 for code in CODES)
    assert len({short(code) for code in CODES}) == len(CODES)
    assert all(1 <= len(short(code)) <= 3 for code in (*CODES, "", "<b>", "VGx"))
    assert meaning("VG99") == "a code that this version does not know"
    assert meaning("") == advice("VG99") == ""


def test_before_anything_happened_the_sites_are_there_and_nothing_is_known(kits):
    found = gather(kits, None)
    assert [node.site for node in found.nodes] == list(SITES)
    assert all(node.registered and node.online is None for node in found.nodes)
    assert (found.running, found.runs, found.warnings) == (False, (), ())
    assert found.base == kits.config.base_digest
    assert set(found.expiries) == {"ca", "server"}


def test_a_site_that_has_not_sent_its_key_is_named(tmp_path):
    kits = example.provisioned(tmp_path, register=False)
    nodes = gather(kits, Server()).nodes
    assert [(node.site, node.registered) for node in nodes] == [
        ("hospital-a", False),
        ("hospital-b", False),
    ]
    assert notes(nodes[0]) == ["its key is not registered"]


def test_nodes_are_told_by_their_keys_and_what_they_said(kits):
    keys = kits.nodes()
    early, late = NOW - timedelta(hours=2), NOW - timedelta(seconds=4)
    said = {
        "hospital-a": {"base": kits.config.base_digest, "version": "0.1.0"},
        "hospital-b": {"base": "f" * 64, "seen": late.isoformat(), "code": "VG15"},
    }
    (kits.state / "nodes.json").write_text(json.dumps(said))
    (kits.state / "skew.json").write_text(json.dumps({"hospital-c": -412.0}))
    found = gather(
        kits,
        Server(
            Seen(1, keys["hospital-a"], online=True, last_seen=late),
            Seen(2, keys["hospital-b"], online=False, last_seen=early),
            Seen(3, "ab" * 40, online=True, last_seen=late),
        ),
    )
    one, two, three = found.nodes
    assert found.running
    assert (one.online, one.base_ok, one.version, one.last_seen) == (
        True,
        True,
        "0.1.0",
        late,
    )
    assert (two.online, two.base_ok, two.refused, two.last_seen) == (
        False,
        False,
        "VG15",
        late,
    )
    assert (three.online, three.base_ok, three.last_seen) == (False, None, None)
    assert notes(one) == []
    assert notes(two) == ["VG15: another base bundle"]
    assert notes(three) == ["clock 412 s behind, too far to be let in"]


def test_a_server_that_does_not_answer_leaves_the_rest_readable(busy):
    found = gather(busy, Server(error=UnreachableError("down")))
    assert not found.running
    assert found.warnings == ()
    assert found.nodes[0].online is None
    assert found.runs[0].round == 3
    refused = gather(busy, Server(error=StateError("refuses: 404")))
    assert refused.warnings == ("refuses: 404 [VG55]",)


def test_a_run_is_told_as_its_registry_has_it(busy):
    (run,) = gather(busy, None).runs
    assert (run.run, run.state, run.experiment) == ("demo-1", "running", "demo")
    assert (run.round, run.rounds, run.stage) == (3, 5, "generate")
    assert run.sites == SITES
    assert run.base == busy.config.base_digest
    assert [record.number for record in run.records] == [1, 2, 3]
    assert [part_of(record, SITES[2]) for record in run.records] == [
        TOOK,
        "VG42",
        TOOK,
    ]
    assert part_of(run.records[0], "hospital-z") == ABSENT
    assert run.left_s == pytest.approx(2 * run.records[2].seconds)
    assert run.damaged == ()


def test_runs_are_told_newest_first_and_a_failed_one_with_its_reason(busy):
    why = {"why": "too few sites", "code": "VG55"}
    folder = example.prepared(busy, "demo-2", state="failed", **why)
    os.utime(folder / "launch" / "launch.json", (2e9, 2e9))
    first, second = gather(busy, None).runs
    assert (first.run, second.run) == ("demo-2", "demo-1")
    assert (first.why, first.code, first.ended, first.stage, first.left_s) == (
        "too few sites",
        "VG55",
        True,
        "",
        None,
    )


def test_a_private_run_tells_its_claim(kits):
    done = example.records(SITES, 1, private=True)
    example.prepared(kits, "dp-1", "privacy.enabled=true", rounds=done)
    (run,) = gather(kits, None).runs
    assert (run.private, run.epsilon, run.delta, run.unit) == (True, 8, 1e-5, "patient")
    assert run.merge == "alternate"
    told = shown(replace(gather(kits, None)))
    assert "epsilon 8 per patient at delta 1e-05" in told
    assert "epsilon spent" in told


RUN = "runs/demo-1"
DAMAGE = {
    "state.json": (f"{RUN}/state.json", "state.json"),
    "launch.json": (f"{RUN}/launch/launch.json", "launch.json"),
    "config.yaml": (f"{RUN}/launch/config.yaml", "/launch/"),
    "round": (f"{RUN}/rounds/0002.json", "round 2"),
    "installed": (f"{RUN}/installed.json", "installed.json"),
    "nodes": ("nodes.json", "nodes.json"),
    "skew": ("skew.json", "skew.json"),
}
BAD = (b"", b"\xff\xfe\x00", b"[1, 2", b"{}", b"[]", b'"text"', b"a: [b\nc: {d")


@pytest.mark.parametrize("content", BAD)
@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_told_and_everything_else_is_there(busy, what, content):
    path, named = DAMAGE[what]
    (busy.state / path).write_bytes(content)
    found = gather(busy, None)
    (run,) = found.runs
    assert len(found.nodes) == 3
    assert run.records[0].number == 1
    assert len(run.records) == (2 if what == "round" else 3)
    told = [*found.warnings, *run.damaged]
    harmless = what in {"installed", "nodes", "skew"} and content == b"{}"
    if not harmless and not (what == "config.yaml" and content in {b"", b"{}"}):
        assert len(told) == 1
        assert named in told[0]
        assert told[0] in " ".join(shown(found, 400).split("! ")[1].split("\n"))
    if what == "state.json":
        assert run.state == UNKNOWN
    assert json.loads(to_json(found))["runs"][0]["round"] == 3


@pytest.mark.parametrize(
    "change",
    [
        {"sites": 3},
        {"sites": [1]},
        {"left_out": ["a"]},
        {"left_out": {"a": None}},
        {"seconds": "long"},
        {"bytes_from": {"a": "much"}},
        {"loss": None},
        {"number": 10**9},
        {"stage": None},
    ],
)
def test_a_record_of_another_form_is_damaged(busy, change):
    path = busy.state / RUN / "rounds" / "0003.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (run,) = gather(busy, None).runs
    assert [record.number for record in run.records] == [1, 2]
    assert run.damaged == ("the record of round 3 is damaged; restore it from a copy",)


def test_damaged_keys_are_a_warning(busy):
    path = busy.home / "nodes.json"
    whole = path.read_bytes()
    try:
        path.write_text("{")
        found = gather(busy, Server())
    finally:
        path.write_bytes(whole)
    assert len(found.warnings) == 1
    assert "nodes.json is damaged" in found.warnings[0]
    assert found.runs[0].round == 3


def test_looking_writes_nothing(busy):
    before = tree_digests(busy.state, leave_out=frozenset())
    to_json(gather(busy, Server()))
    assert tree_digests(busy.state, leave_out=frozenset()) == before
    assert before


def test_a_round_that_is_mended_is_read_again(busy):
    path = busy.state / RUN / "rounds" / "0003.json"
    whole = path.read_text()
    path.write_text("{")
    assert gather(busy, None).runs[0].round == 2
    path.write_text(whole)
    os.utime(path, (2e9, 2e9))
    assert gather(busy, None).runs[0].round == 3


def test_json_is_strict_and_says_what_its_codes_mean(kits):
    record = replace(example.records(SITES, 1)[0], loss={"hospital-a": float("nan")})
    left = replace(record, left_out={"hospital-b": "late"})
    example.prepared(kits, "demo-1", rounds=(left,))

    def refuse(word):
        raise AssertionError(word)

    told = json.loads(to_json(gather(kits, None)), parse_constant=refuse)
    assert told["runs"][0]["records"][0]["loss"] == {"hospital-a": None}
    assert told["meanings"] == {"late": meaning("late")}
    assert datetime.fromisoformat(told["at"]).tzinfo


@pytest.mark.parametrize("width", [40, 80, 132, 220])
@pytest.mark.parametrize("name", example.ALL)
def test_the_view_fits_every_width_and_names_every_site(name, width):
    found = example.ALL[name]()
    told = shown(found, width)
    plain = Console(file=io.StringIO(), width=width)
    plain.print(render(found))
    lines = plain.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        for node in found.nodes:
            assert node.site in told
        for run in found.runs:
            assert run.run in told


def test_the_view_says_why_sites_were_left_out():
    told = shown(example.many(), 200)
    assert meaning("VG43") in told
    assert "rounds from 1" in told
    assert "■" in told
    assert "✕" in told


def test_the_view_shows_held_out_losses_and_whose_update_was_held_to_the_bound():
    told = shown(example.bounded(), 200)
    assert "held-out loss" in told
    assert "0.08" in told
    assert "▣ took part, its update held to the bound" in told
    assert told.count("hospital-c 97.2 x the others") == 5
    assert "▣" not in shown(example.three(), 200)


def test_a_name_cannot_steer_the_terminal():
    evil = "a\x1b[2J\x07[red]b[/red]\u202e\r\n\ud800"
    node = example.node(evil, version=evil, base=evil, refused=evil)
    record = replace(
        example.records([evil], 1)[0],
        sites=[evil],
        left_out={f"x{evil}": evil},
        bounded={evil: 3.0},
        stage=evil,
    )
    run = example.run(evil, [evil], 1, records=(record,), why=evil, code=evil)
    bad = replace(run, state=evil, experiment=evil, unit=evil, damaged=(evil,))
    found = example.status(
        name=evil, host=evil, warnings=(evil,), nodes=(node,), runs=(run, bad)
    )
    console = Console(file=io.StringIO(), width=300)
    console.print(render(found))
    told = console.file.getvalue()
    for letter in "\x1b\x07\u202e\r\ud800":
        assert letter not in told
    assert "[red]" in told
    assert clean(evil).startswith("a\N{REPLACEMENT CHARACTER}[2J")


def test_times_are_told_roughly():
    assert [how_long(s) for s in (0.0, 9.94, 59, 61, 3660)] == [
        "0.0 s",
        "9.9 s",
        "59 s",
        "1 min 01 s",
        "1 h 01 min",
    ]
    pasts = (0, 3, 100, 150, 8000, 200_000)
    assert [ago(NOW - timedelta(seconds=s), NOW) for s in pasts] == [
        "now",
        "3 s ago",
        "100 s ago",
        "2 min ago",
        "2 h ago",
        "2 d ago",
    ]
    assert ago(None, NOW) == "never"
