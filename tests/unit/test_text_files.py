"""Text files are UTF-8 whatever the locale, and configuration is that of the package."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.federation.processes import BIN
from vgmedgen.config.load import config_root
from vgmedgen.errors import ConfigError

ROOT = Path(__file__).parents[2]
PARTS = ("vgmedgen", "server", "client", "simulations", "configs")
# a locale whose encoding is ASCII, without Python's own way around it
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
_CODED = {"read_text": 0, "write_text": 1}  # method -> position of its encoding


def left_to_the_locale(source):
    """Lines of `source` that read or write text without saying how it is encoded."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        if any(word.arg in {"encoding", None} for word in node.keywords):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        method = isinstance(node.func, ast.Attribute)
        if _hangs(node, name, method=method):
            yield node.lineno


def _hangs(call, name, *, method):
    if name in _CODED and method:
        return len(call.args) <= _CODED[name]
    if name in {"open", "fdopen"}:
        where = 0 if method and name == "open" else 1
        mode = call.args[where] if len(call.args) > where else ast.Constant("r")
        told = isinstance(mode, ast.Constant) and isinstance(mode.value, str)
        return told and "b" not in mode.value
    return name in {"RotatingFileHandler", "FileHandler", "TextIOWrapper"} or any(
        word.arg in {"text", "universal_newlines"} for word in call.keywords
    )


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("files.write_text(path, text)", False),  # ours, always UTF-8
        ("path.open('a')", True),
        ("path.open()", True),
        ("open(path)", True),
        ("os.fdopen(number, 'w')", True),
        ("subprocess.run(words, text=True)", True),
        ("logging.FileHandler(path)", True),
        ("path.open('rb')", False),
        ("path.open('a', encoding='utf-8')", False),
        ("Image.open(stream)", False),
        ("path.read_text('utf-8')", False),
    ],
)
def test_the_look_below_sees_what_hangs_on_the_locale(source, fault):
    assert bool(list(left_to_the_locale(source))) == fault


def test_no_text_file_of_ours_hangs_on_the_locale():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        for line in left_to_the_locale(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_a_run_with_an_umlaut_is_taken_up_again_under_another_locale(tmp_path):
    code = (
        "import sys; from pathlib import Path; from vgmedgen.config.load import *;"
        "config = load_run(['run.dir=F\\xfc\\xdfe/\\u03b1']); path = Path(sys.argv[1]);"
        "save(config, path); assert load_file(path).digest == config.digest;"
        "print(config.digest)"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{number}.yaml")],
            env={**os.environ, **env},
            capture_output=True,
            check=True,
        ).stdout
        for number, env in enumerate(({"PYTHONUTF8": "1"}, ASCII))
    }
    assert len(told) == 1
    assert (tmp_path / "0.yaml").read_bytes() == (tmp_path / "1.yaml").read_bytes()


def test_an_override_that_the_locale_cannot_read_is_refused(tmp_path):
    done = subprocess.run(
        [BIN / "vgmedgen-simulate", "run.dir=Füße"],
        env={**os.environ, **ASCII},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"is no text in this locale" in done.stderr
    assert b"LC_ALL=C.UTF-8 [VG10]" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_foreign_configs_folder_beside_an_installed_package_hides_nothing(tmp_path):
    for part in ("vgmedgen", "server", "simulations"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copytree(ROOT / "configs", tmp_path / "vgmedgen" / "_configs")
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    for name in ("base.yaml", "experiment/demo.yaml"):
        (tmp_path / "configs" / name).write_text("alien: 1\n", encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-c", "from simulations.cli import main; main()"),
            "experiment=nowhere",
        ],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert "there are: " in done.stderr
    assert "dp-3" in done.stderr


def test_configuration_is_the_packages_own(tmp_path):
    package = tmp_path / "vgmedgen"
    package.mkdir()
    (tmp_path / "configs").mkdir()  # somebody else's
    with pytest.raises(ConfigError, match="install vgmedgen anew"):
        config_root(package)
    shutil.copytree(ROOT / "configs", package / "_configs")
    assert config_root(package) == package / "_configs"
    (package / "_configs" / "base.yaml").unlink()
    shutil.copytree(ROOT / "configs", tmp_path / "configs", dirs_exist_ok=True)
    assert config_root(package) == tmp_path / "configs"
    assert config_root() == ROOT / "configs"
