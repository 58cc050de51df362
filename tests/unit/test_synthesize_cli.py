"""`vgmedgen synthesize`: from a wish to a folder, and one line for whatever is wrong."""

import csv
import logging
import sys

import pytest

from tests.gated import install_base, make_site
from vgmedgen.cli import app
from vgmedgen.cli.shared import run_cli
from vgmedgen.data import adapters
from vgmedgen.errors import ConfigError
from vgmedgen.synthesis.prompts import Control, Wish, asks_of, read_prompts

LONG = "a lesion with " + "many words " * 150


@pytest.fixture(scope="module")
def clinic(bundle, micro, tmp_path_factory):
    """A site whose gate can be opened, with a release."""
    site = make_site(tmp_path_factory.mktemp("clinic"), bundle)
    install_base(site, micro.plan)
    return site


@pytest.fixture
def say(clinic, tmp_path, monkeypatch, capsys):
    """Run the command; returns exit code, standard output, standard error's last line."""

    def ask(*words: str, site: str = "") -> tuple[int, str, str]:
        told = ["--site", site or str(clinic.folder), "--out", str(tmp_path / "out")]
        line = ["vgmedgen", "synthesize", "--steps", "2", *words, *told]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as left:
            run_cli(app, "vgmedgen")
        said = capsys.readouterr()
        lines = [text for text in said.err.splitlines() if text.startswith("vgmedgen:")]
        return int(left.value.code or 0), said.out, "\n".join(lines)

    return ask


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_prompts_as_arguments_are_drawn_and_counted(say, tmp_path):
    code, out, err = say("a small lesion", "a large  lesion", "--count", "2")
    assert (code, err) == (0, "")
    rows = rows_of(tmp_path / "out/images.csv")
    held = sum(1 for _ in (tmp_path / "out").glob("quarantine/*.png"))
    assert "drawn        4\n" in out
    assert f"cleared      {len(rows)} " in out
    assert f"quarantined  {held}" in out
    assert "gate.html" in out
    assert len(rows) + held == 4
    assert {row["prompt"] for row in rows} <= {"a small lesion", "a large lesion"}
    code, out, err = say("a small lesion", "a large lesion", "--count", "2", "--resume")
    assert code == 0
    assert "4, 4 of them before" in out


def test_a_plan_fills_a_layout_that_the_command_line_reads_back(
    say, tmp_path, monkeypatch, capsys
):
    plan = tmp_path / "plan.yaml"
    plan.write_text("classes:\n  mel: {count: 2, size: [small, large]}\n  df: 1\n")
    code, _, err = say("--plan", str(plan), "--layout", "ham10000")
    assert (code, err) == (0, "")
    labels = [r.label for r in adapters.read("ham10000", tmp_path / "out").records]
    assert set(labels) <= {"mel", "df"}
    line = ["vgmedgen", "data", "check", "ham10000", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as left:
        run_cli(app, "vgmedgen")
    assert not left.value.code
    assert f"{len(labels)} images" in capsys.readouterr().out


def test_a_strip_goes_from_one_caption_to_another_with_one_seed(say, tmp_path):
    code, _, err = say("a lesion", "--towards", "a mass", "--strip", "3", "--no-gate")
    assert code == 1
    assert "policy.ungated" in err
    code, _, _ = say("a lesion", "--towards", "a mass", "--strip", "3", "--seed", "5")
    assert code == 0
    rows = rows_of(tmp_path / "out/images.csv")
    assert {row["seed"] for row in rows} == {"5"}
    assert [float(row["share"]) for row in rows] == sorted(
        {float(row["share"]) for row in rows}
    )


def test_a_prompt_that_is_too_long_is_told_of_and_refused_if_strict(
    say, tmp_path, caplog
):
    code, _, err = say("a lesion", LONG, "--strict")
    assert code == 1
    assert "prompt 2 is too long by" in err
    assert "tokens" in err
    assert not (tmp_path / "out").exists()
    with caplog.at_level(logging.WARNING, logger="vgmedgen"):
        code, _, _ = say("a lesion", LONG)
    assert code == 0
    told = [r.getMessage() for r in caplog.records if "prompt 2" in r.getMessage()]
    assert len(told) == 1


def test_anatomy_and_style_given_apart_need_no_prompt(say, tmp_path):
    code, _, _ = say("--anatomy", "small round lesion", "--style", "dark brown")
    assert code == 0
    with (tmp_path / "out" / "images.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    told = [row[name] for name in ("prompt", "anatomy", "style")]
    assert told == [
        "small round lesion; dark brown",
        "small round lesion",
        "dark brown",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give one of: prompts as arguments, --prompts, --plan"),
        (["a", "--prompts", "x.csv"], "give one of"),
        (["--anatomy", "a"], "--anatomy and --style together"),
        (["--anatomy", "a", "--style", "b", "--plan", "p", "c"], "give one of"),
        ([""], "prompt 1 is empty"),
        (["a", "  "], "prompt 2 is empty"),
        (["a\x07b"], "control characters"),
        (["a" * 3001], "3001 characters; the limit is 3000"),
        (["a", "--count", "0"], "--count must be 1 or more"),
        (["a", "--count", "200000"], "more than one job draws"),
        (["a", "--seed", "-1"], "must lie in"),
        (["a", "--steps", "0"], "steps must be above 0"),
        (["a", "--guidance", "0.5"], "guidance must lie in"),
        (["a", "--share", "0.5"], "need --towards"),
        (["a", "--towards", "b", "--share", "1.5"], "--share must lie in"),
        (["a", "--towards", "b", "--strip", "1"], "--strip must be 2 or more"),
        (["a", "--towards", "b", "--strip", "3", "--share", "0.5"], "give one of them"),
        (["a", "--layout", "coco"], "layout must be one of"),
        (["a", "--layout", "ham10000"], "has no label"),
        (["a", "--model", "ffff"], "no release starts with 'ffff'"),
        (["a", "--no-gate"], "policy.ungated: true"),
        (["--prompts", "absent.csv"], "there is no prompt file absent.csv"),
        (["--plan", "absent.yaml"], "there is no plan absent.yaml"),
        (["a", "--device", "tpu"], "device must be cpu or cuda"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing_behind(
    say, tmp_path, words, says
):
    code, out, err = say(*words)
    assert code == 1
    assert out == ""
    assert says in err
    assert err.count("\n") == 0
    assert err.endswith("]")
    assert not (tmp_path / "out").exists()


def test_an_unknown_class_of_a_plan_is_refused_with_the_nearest_one(say, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("classes: {melanoma: 3}\n")
    code, _, err = say("--plan", str(plan))
    assert code == 1
    assert "did you mean 'mel'" in err
    assert not (tmp_path / "out").exists()


def test_a_site_that_is_none_is_refused_and_a_site_yaml_is_taken(say, clinic, tmp_path):
    code, _, err = say("a", site=str(tmp_path / "nowhere"))
    assert code == 1
    assert "site.yaml" in err
    code, _, _ = say("a", site=str(clinic.folder / "site.yaml"))
    assert code == 0


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.csv", "text\na\n", "no column 'prompt'"),
        ("p.csv", "prompt\na\n \n", "prompt 2 is empty"),
        ("p.csv", "prompt\n", "no prompt"),
        ("p.csv", "prompt,seed\na,x\n", "seed of prompt 1 is 'x'"),
        ("p.csv", "prompt,seed\na,-1\n", "seed of prompt 1 is '-1'"),
        ("p.txt", "a\n\nb\n", "prompt 2 is empty"),
        ("p.txt", "", "no prompt"),
    ],
)
def test_bad_prompt_files_are_refused_with_their_row(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_prompts(tmp_path / name)
    (tmp_path / name).write_bytes(b"prompt\n\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_prompts(tmp_path / name)


def test_prompts_are_read_from_csv_and_text_alike(tmp_path):
    (tmp_path / "p.csv").write_text('\ufeffid,prompt\n1,"a, b"\n2,c\n')
    (tmp_path / "p.txt").write_text("a, b\nc\n")
    assert read_prompts(tmp_path / "p.csv") == read_prompts(tmp_path / "p.txt")
    with pytest.raises(ConfigError, match="no prompt file"):
        read_prompts(tmp_path / "absent.csv")


def test_a_row_may_bring_its_label_its_captions_and_its_seed(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prompt,label,anatomy,style,seed\na,mel,b,,70\nc,,,d,\n")
    asks = asks_of(read_prompts(path), Control(count=2, seed=5, style="other"))
    assert [ask.number for ask in asks] == [0, 1, 2, 3]
    assert [ask.seed for ask in asks] == [70, 71, 7, 8]
    assert [ask.label for ask in asks] == ["mel", "mel", "", ""]
    assert [ask.anatomy for ask in asks] == ["b", "b", "", ""]
    assert [ask.style for ask in asks] == ["other", "other", "d", "d"]


def test_a_strip_has_both_ends_and_numbers_of_its_own():
    asks = asks_of(
        [Wish(prompt="a"), Wish(prompt="b")], Control(towards="c", strip=3, seed=1)
    )
    assert [ask.share for ask in asks] == [0, 0.5, 1] * 2
    assert [ask.number for ask in asks] == list(range(6))
    assert [ask.seed for ask in asks] == [1, 1, 1, 4, 4, 4]
