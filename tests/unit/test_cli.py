"""The command lines: what they print, and how they refuse."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from simulations.cli import app as simulate_app
from vgmedgen.cli import app
from vgmedgen.cli.shared import run_cli
from vgmedgen.errors import ConfigError
from vgmedgen.training.public import base_for

runner = CliRunner()


def ask(*words: str) -> str:
    result = runner.invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    "verb",
    [
        ["base", "build"],
        ["base", "verify"],
        ["data", "check"],
        ["data", "caption"],
        ["data", "phantom"],
        ["data", "twins"],
        ["data", "prompts"],
        ["synthesize"],
        ["release", "show"],
        ["release", "verify"],
    ],
)
def test_every_verb_has_help_with_an_example(verb):
    assert "example: vgmedgen" in " ".join(ask(*verb, "--help").split())


def test_the_simulation_has_help_with_an_example():
    result = runner.invoke(simulate_app, ["--help"])
    assert "example: vgmedgen-simulate" in " ".join(result.output.split())


def test_help_imports_no_model_code():
    code = (
        "import sys; from simulations.cli import app; from vgmedgen.cli import app; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'flwr', 'monai')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_phantoms_are_drawn_checked_and_captioned(tmp_path):
    folder, table = tmp_path / "breast", tmp_path / "captions.csv"
    assert "layout of busi" in ask(
        "data", "phantom", "ultrasound", str(folder), "--count", "6", "--px", "64"
    )
    told = ask("data", "check", "busi", str(folder))
    assert "6 images" in told
    assert "unit: image" in told
    ask("data", "caption", "busi", str(folder), str(table))
    lines = table.read_text().splitlines()
    assert lines[0] == "image,caption"
    assert len(lines) == 7


def test_a_base_is_verified_and_built_once(bundle, micro):
    assert bundle.digest in ask("base", "verify", str(bundle.folder))
    assert base_for(micro).digest == bundle.digest


def test_a_refusal_is_one_line_with_its_code_and_exit_1(capsys):
    def refuse() -> None:
        raise ConfigError("x must be above 0, got -1")

    with pytest.raises(SystemExit) as left:
        run_cli(refuse, "vgmedgen")
    assert left.value.code == 1
    assert capsys.readouterr().err == "vgmedgen: x must be above 0, got -1 [VG10]\n"


def test_an_unknown_modality_is_refused_and_a_missing_argument_is_misuse(tmp_path):
    with pytest.raises(ConfigError, match="dermoscopy"):
        runner.invoke(
            app, ["data", "phantom", "xray", str(tmp_path)], catch_exceptions=False
        )
    assert runner.invoke(app, ["data", "check"]).exit_code == 2
