"""`vgmedgen-client`: key, preflight, limits, runs and audit log of a site."""

import json
from dataclasses import fields

import pytest

from client.approvals import Approvals
from client.request import Request
from client.turns import Turns
from tests.officer import NOW, asked_of, said
from vgmedgen.config.plan import PrivacyConfig, RunPlan
from vgmedgen.errors import (
    ApprovalError,
    ConfigError,
    ExchangeError,
    StateError,
    TrustError,
)
from vgmedgen.exchange.wire import Kind
from vgmedgen.site.config import Policy

SITE = """
name: site-a
sources: [{dataset: busi, root: images}]
privacy: {epsilon: 3.0}
"""
LIMITED = (
    SITE
    + """
policy:
  coordinators: [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]
  approval: required
  hours: 20:00-06:00
  dp: required
coordinator: {address: "fl.example.org:8443"}
"""
)


@pytest.fixture
def site(tmp_path):
    """A site's folder, with its file alone."""
    (tmp_path / "site.yaml").write_text(SITE)
    return tmp_path


@pytest.fixture
def limited(site):
    (site / "site.yaml").write_text(LIMITED)
    return site


@pytest.mark.parametrize(
    "verb",
    [
        "keygen",
        "check",
        "start",
        "policy show",
        "policy validate",
        "runs",
        "approve",
        "deny",
        "audit verify",
        "audit show",
    ],
)
def test_every_verb_of_a_node_has_help_with_an_example(verb):
    told = " ".join(said(*verb.split(), "--help").split())
    assert f"example: vgmedgen-client {verb}" in told


def test_a_key_is_made_before_the_site_is_complete(tmp_path):
    told = said("keygen", "--site", tmp_path)
    line, fingerprint = told.splitlines()[:2]
    assert line.startswith("ecdsa-sha2-nistp384 ")
    assert (tmp_path / "node.pub").read_text().strip() == line
    assert fingerprint.startswith("fingerprint SHA256:")
    assert (tmp_path / "node.key").stat().st_mode & 0o077 == 0
    assert "PRIVATE" not in told
    with pytest.raises(TrustError, match="exists"):
        said("keygen", "--site", tmp_path / "site.yaml")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("name: a\ncoordinator: {key: keys/mine.key}", "keys/mine.key"),
        ("name: a", "node.key"),
        ("coordinator: {key: null}", "node.key"),
        ("", "node.key"),
    ],
)
def test_a_key_lies_where_the_site_says(tmp_path, text, name):
    (tmp_path / "site.yaml").write_text(text)
    said("keygen", "--site", tmp_path / "site.yaml")
    assert (tmp_path / name).is_file()


def test_a_site_that_is_none_is_refused(tmp_path):
    (tmp_path / "site.yaml").write_text("name: [")
    with pytest.raises(ConfigError, match="not YAML"):
        said("keygen", "--site", tmp_path)
    for wrong in (tmp_path / "other.yaml", tmp_path / "nowhere" / "site.yaml"):
        with pytest.raises(ConfigError, match="is no site"):
            said("keygen", "--site", wrong)
    assert not list(tmp_path.glob("*.key"))


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([("port", True, False)], 0),
        ([("port", False, True)], 4),
        ([("port", False, True), ("clock", False, True), ("data", True, False)], 4),
        ([("port", False, True), ("data", False, False)], 1),
    ],
)
def test_a_preflight_ends_as_what_it_found(limited, monkeypatch, findings, code):
    from client import preflight
    from client.preflight import Finding

    found = [
        Finding(
            name=n,
            ok=ok,
            told="found this",
            todo="" if ok else "do that",
            unreachable=far,
        )
        for n, ok, far in findings
    ]
    monkeypatch.setattr(preflight, "examine", lambda folder: found)
    told = said("check", "--site", limited, code=code)
    for name, ok, _ in findings:
        assert f"{'✓' if ok else '✗'} {name}" in told
    assert ("; do that" in told) == (code > 0)
    told = json.loads(said("check", "--site", limited, "--json", code=code))
    assert [one["name"] for one in told] == [name for name, _, _ in findings]


def test_a_warning_is_told_and_no_failure(limited, monkeypatch):
    from client import preflight
    from client.preflight import Finding

    found = [Finding(name="ca", ok=True, told="ends soon", todo="ask", warning=True)]
    monkeypatch.setattr(preflight, "examine", lambda folder: found)
    assert said("check", "--site", limited) == "! ca  ends soon; ask\n"


def test_start_serves_the_folder_of_the_site(limited, monkeypatch):
    from client import supervisor

    served = []
    monkeypatch.setattr(
        supervisor, "serve", lambda folder, *, as_json: served.append((folder, as_json))
    )
    said("start", "--site", limited / "site.yaml", "--json")
    assert served == [(limited, True)]


def test_the_policy_is_told_in_sentences_with_defaults_named(limited):
    told = said("policy", "show", "--site", limited).splitlines()
    assert len(told) == len(fields(Policy))
    assert "Runs signed by aaaaaaaaaaaaaaaa are served, no others." in told
    assert "Orders are served from 20:00 to 06:00, local time." in told
    assert "Only runs with differential privacy are served." in told
    assert "No learning rate may be above 0.1. (default)" in told
    assert any("the ledger keeps 3 per unit at delta 1e-05" in line for line in told)
    given = {"coordinators", "approval", "hours", "dp"}
    assert sum(line.endswith("(default)") for line in told) == len(told) - len(given)


def test_a_policy_in_which_everything_is_set_has_no_default(site):
    (site / "site.yaml").write_text(
        SITE
        + """
policy: {coordinators: [], runs: [a, b], stages: [align], approval: none, dry_run: true,
  metrics: false, dp: refused, epsilon_per_run: 1, min_units: 3, rounds_per_run: 4,
  min_heldout: 2, min_batch: 2,
  rounds_per_day: 5, steps_per_round: 6, learning_rate: 0.01, hours: "",
  ungated: false, identified_dicom: false, worse_by: 0.2,
  exchange: eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee}
"""
    )
    told = said("policy", "show", "--site", site)
    assert "(default)" not in told
    assert "Only rounds of stage align are served." in told
    assert "No loss leaves." in told
    assert "nothing is sent" in told


def test_a_valid_policy_says_so_and_what_to_think_about(site, limited):
    told = said("policy", "validate", "--site", limited)
    assert told.splitlines()[-1].startswith(f"{limited / 'site.yaml'} is valid")
    assert told.count("\n! ") + told.startswith("! ") == 1  # min_units
    (site / "site.yaml").write_text(SITE.replace("{epsilon: 3.0}", "{epsilon: 0}"))
    told = said("policy", "validate", "--site", site)
    for word in ("coordinators is empty", "approval is none", "dp is optional"):
        assert word in told
    (site / "site.yaml").write_text(SITE + "policy: {hours: always}")
    with pytest.raises(ConfigError, match=r"policy\.hours"):
        said("policy", "validate", "--site", site)
    (site / "site.yaml").write_text(SITE + "policy: {min_unit: 3}")
    with pytest.raises(ConfigError, match="min_units"):
        said("policy", "validate", "--site", site)


def test_a_policy_that_serves_nothing_is_named(site):
    odd = (
        "policy: {runs: [], stages: [], hours: 07:00-07:00, dp: refused, dry_run: true}"
    )
    (site / "site.yaml").write_text(SITE + odd)
    told = said("policy", "validate", "--site", site)
    for word in (
        "runs is empty",
        "stages is empty",
        "hours begin",
        "dp is refused",
        "dry_run is",
    ):
        assert word in told


def test_the_runs_that_asked_are_listed_with_how_they_stand(limited):
    assert "no run has asked" in said("runs", "--site", limited)
    private = RunPlan(privacy=PrivacyConfig(enabled=True, epsilon=4.0))
    asked_of(limited, run="waits")
    for run in ("approved", "serves", "ends", "denied"):
        asked_of(limited, private, run)
        book = Approvals(limited)
        book.approve(book.of(run).asks[-1], "A", NOW)
    Approvals(limited).deny("denied", "A", NOW)
    turns = Turns(limited)
    for run, number, kind in (
        ("serves", 1, Kind.TRAIN),
        ("serves", 2, Kind.TRAIN),
        ("ends", 1, Kind.TRAIN),
        ("ends", 5, Kind.INSTALL),
        ("free", 1, Kind.TRAIN),
    ):
        words = {"run": run, "round": str(number)}
        asked = Request(kind=kind, words=words, plan=private)
        turns.begin(asked, NOW.date())
        turns.record(asked)
    (limited / "runs" / "free").mkdir(parents=True)
    (limited / "runs" / "free" / "plan.json").write_text(RunPlan().to_json())
    rows = {
        row["run"]: row for row in json.loads(said("runs", "--site", limited, "--json"))
    }
    assert {run: (row["state"], row["rounds"]) for run, row in rows.items()} == {
        "waits": ("waiting", "0"),
        "approved": ("approved", "0"),
        "serves": ("serving", "2"),
        "ends": ("ended", "1"),
        "denied": ("denied", "0"),
        "free": ("serving", "1"),
    }
    assert rows["waits"]["epsilon"] == rows["free"]["epsilon"] == "without DP"
    assert rows["serves"]["epsilon"] == "4 per patient, delta 1e-05"
    assert rows["serves"]["coordinator"] == "c" * 16
    told = said("runs", "--site", limited).splitlines()
    assert told[0].split() == ["run", "coordinator", "state", "rounds", "epsilon"]
    assert len(told) == 7


def test_a_run_that_never_asked_cannot_be_approved_and_can_be_denied(limited):
    with pytest.raises(ApprovalError, match="asked nothing"):
        said("approve", "other", "--site", limited, "--by", "A")
    for verb in ("approve", "deny"):
        with pytest.raises(ExchangeError, match="cannot be the id"):
            said(verb, "../../etc/passwd", "--site", limited, "--by", "A")
    said("deny", "other", "--site", limited, "--by", "A")
    assert Approvals(limited).of("other").denied


def test_a_name_that_a_log_cannot_hold_is_asked_for(limited, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "svc_4711")
    with pytest.raises(ConfigError, match="--by"):
        said("deny", "demo-1", "--site", limited)
    monkeypatch.setattr("getpass.getuser", lambda: "officer")
    said("deny", "demo-1", "--site", limited)
    assert Approvals(limited).of("demo-1").decisions[-1]["by"] == "officer"


def test_the_audit_log_is_shown_and_verified(limited):
    assert "0 lines, the last of never" in said("audit", "verify", "--site", limited)
    said("deny", "demo-1", "--site", limited, "--by", "A")
    said("deny", "demo-2", "--site", limited, "--by", "A")
    told = said("audit", "show", "--site", limited)
    assert len(told.splitlines()) == 2
    assert "run=demo-1 decision=denied approved_by=A" in told
    one = said("audit", "show", "--site", limited, "--run", "demo-2", "--json")
    assert json.loads(one)["run"] == "demo-2"
    told = said("audit", "verify", "--site", limited)
    assert "2 lines" in told
    assert json.loads(one)["hash"] in told
    path = limited / "audit.jsonl"
    path.write_text(path.read_text().replace("demo-1", "demo-3"))
    with pytest.raises(StateError, match="line 1"):
        said("audit", "verify", "--site", limited)
