"""`vgmedgen-client ledger`: what a hospital reads, and how it is refused."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.runfiles import AUDIT
from vgmedgen.cli.shared import run_cli
from vgmedgen.config.load import load_run, save
from vgmedgen.data.layouts import write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.errors import ConfigError, PolicyError, StateError, VGMedGenError
from vgmedgen.privacy.accountant import Mechanism, spent
from vgmedgen.privacy.budget import rounded
from vgmedgen.privacy.ledger import Entry, Ledger
from vgmedgen.privacy.plan import PrivacyPlan
from vgmedgen.site.folder import Site
from vgmedgen.trust.journal import Journal

runner = CliRunner()
DELTA = 1e-5
COST = (Mechanism(noise=5.0, rate=0.25, steps=40),)
PLANNED = (
    "privacy.enabled=true",
    "privacy.epsilon=2",
    "privacy.unit=image",
    "align.mapper_steps=20",
    "generate.steps=20",
)
SITE = """
name: site-a
sources: [{dataset: busi, root: images}]
privacy: {epsilon: 3.0}
"""


def ask(*words: object) -> str:
    result = runner.invoke(app, ["ledger", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_phantoms("ultrasound", folder, 6, 0, 64, tint_of(0))
    return folder


@pytest.fixture
def site(tmp_path, images):
    """A site's folder, with six images."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "site.yaml").write_text(SITE)
    (folder / "images").symlink_to(images)
    return folder


@pytest.fixture
def trained(site):
    """The same, after one round of one run."""
    ask("cohort", site)
    ledger = Ledger.open(site, "site-a")
    entry = Entry(
        cohort=1,
        run="run-a",
        round=1,
        stage="generate",
        order="o",
        plan="p",
        base="b",
        mechanisms=COST,
    )
    ledger.reply(ledger.book(entry, limit=3.0, delta=DELTA), "outcome")
    return site


@pytest.mark.parametrize(
    "verb", ["show", "verify", "rows", "cohort", "export", "adopt"]
)
def test_every_verb_has_help_with_an_example(verb):
    told = " ".join(ask(verb, "--help").split())
    assert f"example: vgmedgen-client ledger {verb}" in told


def test_help_imports_no_model_code():
    code = (
        "import sys; from client.cli import app; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'flwr', 'monai')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_epsilon_stands_beside_unit_delta_accountant_and_scope(trained):
    told = ask("show", trained)
    assert "4 rows, every one as it was written" in told
    lines = [line for line in told.splitlines() if "spent" in line]
    scopes = ("all that this site ever booked", "all runs of this site on units of coh")
    for line, scope in zip(lines, scopes, strict=True):
        for word in ("image-level", "delta 1e-05", "accountant PRV", scope):
            assert word in line
        assert f"epsilon {rounded(spent(COST, DELTA).epsilon)} " in line
    assert "replace-one" in told
    assert "limit: epsilon 3 per image at delta 1e-05 over all runs" in told
    assert told.splitlines()[-1].split()[:5] == ["run-a", "1", "0", "1", "1"]


def test_the_same_as_json(trained):
    found = json.loads(ask("show", trained, "--json"))
    epsilon = spent(COST, DELTA).epsilon
    assert found["spent"]["epsilon"] == epsilon
    assert found["left"] == 3.0 - epsilon
    assert found["cohort"]["unit"] == "image"
    assert found["runs"][0]["mechanisms"] == [[5.0, 0.25, 40]]
    assert found["for"] is None


def test_another_run_is_priced_before_it_is_joined(trained, tmp_path):
    words = [word for planned in PLANNED for word in ("--for", planned)]
    found = json.loads(ask("show", trained, "--json", *words))["for"]
    whole = PrivacyPlan.of(load_run(PLANNED).plan).whole()
    assert found["fits"]
    assert found["alone"]["epsilon"] == spent(whole, DELTA).epsilon
    assert found["after"]["epsilon"] == spent([*whole, *COST], DELTA).epsilon
    save(load_run(PLANNED), tmp_path / "run.yaml")
    assert (
        json.loads(ask("show", trained, "--json", "--for", tmp_path / "run.yaml"))[
            "for"
        ]
        == found
    )
    told = ask("show", trained, *words, "--for", "privacy.epsilon=2.9")
    assert "it is refused" in told
    assert "what would fit: " in told
    assert "no DP and no bound: refused" in ask(
        "show", trained, "--for", "privacy.enabled=false"
    )


def test_rows_are_facts_that_others_can_read(trained):
    rows = [json.loads(line) for line in ask("rows", trained).splitlines()]
    assert [row["kind"] for row in rows] == ["open", "cohort", "stage", "reply"]
    assert rows[-1]["hash"] in ask("verify", trained)


def test_a_site_is_named_as_everywhere_else(trained, monkeypatch):
    for verb in ("show", "verify", "rows"):
        told = ask(verb, trained)
        for where in (trained, trained / "site.yaml"):
            assert ask(verb, "--site", where) == told
        monkeypatch.chdir(trained)
        assert ask(verb).splitlines()[-1] == told.splitlines()[-1]
    assert "nothing was opened" in ask("cohort", "--site", trained)


def test_a_ledger_that_lacks_an_answered_round_is_not_whole(trained):
    Journal(trained / AUDIT).add(
        "out", kind="train", run="run-a", round=2, decision="sent"
    )
    with pytest.raises(StateError, match="round 2 of run run-a was answered"):
        ask("verify", trained)


def test_a_new_cohort_is_opened_by_the_command_only(site):
    assert "cohort 1: 6 units (image), 6 images" in ask("cohort", site)
    assert "nothing was opened" in ask("cohort", site)
    two = sorted(Site(site).members())[:2]
    listed = f"root: images, units: {json.dumps(two)}"
    (site / "site.yaml").write_text(SITE.replace("root: images", listed))
    with pytest.raises(PolicyError, match="4 units and 4 images removed"):
        Ledger.open(site, "site-a").cohort_for(Site(site).members(), "image")
    told = ask("cohort", site)
    assert "cohort 2: 2 units" in told
    assert "keep what they spent" in told


def test_a_ledger_moves_and_the_old_place_says_so(trained, tmp_path):
    out, new = tmp_path / "moved.sqlite", tmp_path / "new"
    new.mkdir()
    (new / "site.yaml").write_text(SITE)
    assert "books nothing any more" in ask("export", trained, out)
    assert "moved away on" in ask("show", trained)
    assert "6 rows" in ask("adopt", out, new)
    assert json.loads(ask("show", new, "--json"))["runs"][0]["run"] == "run-a"


@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        (["show", "FOLDER"], StateError, "ledger cohort"),
        (["verify", "nowhere"], ConfigError, "site.yaml"),
        (["rows", "FOLDER"], StateError, "there is no"),
    ],
)
def test_what_is_not_there_is_refused(site, words, error, told):
    asked = ["ledger", *(word.replace("FOLDER", str(site)) for word in words)]
    with pytest.raises(error, match=told):
        runner.invoke(app, asked, catch_exceptions=False)
    assert not (site / "ledger.sqlite").exists()


def test_a_planned_run_that_is_no_file_is_refused(trained):
    with pytest.raises(ConfigError, match=r"run.yaml or key=value"):
        runner.invoke(
            app, ["ledger", "show", str(trained), "--for", "x"], catch_exceptions=False
        )


def test_a_damaged_ledger_is_one_line_and_exit_1(trained, capsys):
    (trained / "ledger.sqlite").write_bytes(b"x" * 5000)

    def verify() -> None:
        app(["ledger", "verify", str(trained)], standalone_mode=False)

    with pytest.raises(VGMedGenError):
        verify()
    with pytest.raises(SystemExit) as left:
        run_cli(verify, "vgmedgen-client")
    assert left.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("vgmedgen-client: ")
    assert error.endswith("[VG55]\n")
    assert error.count("\n") == 1
