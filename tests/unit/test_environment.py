"""What a process of ours finds around it, whoever starts it."""

import os
import subprocess
import sys

import pytest

from client.options import officer
from vgmedgen.errors import ConfigError
from vgmedgen.process import environment, importing

NAMELESS = 54_321  # a user id that no system gives a name
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture
def nameless(monkeypatch):
    """This process as a user whose id has no name; undone by monkeypatch."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: NAMELESS)


def test_a_user_without_a_name_is_given_one(nameless):
    import getpass

    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    environment.name_user()
    assert getpass.getuser() == environment.NOBODY


def test_a_user_without_a_name_and_a_home_is_asked_for_a_cache(nameless, monkeypatch):
    environment.name_user()  # as every command begins
    from vgmedgen.training.public import cache_root

    for name in ("HOME", "XDG_CACHE_HOME", "VGMEDGEN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="set VGMEDGEN_CACHE"):
        cache_root()


def test_a_user_with_a_name_keeps_it(monkeypatch):
    monkeypatch.setenv("LOGNAME", "radiology")
    environment.name_user()
    assert os.environ["LOGNAME"] == "radiology"


def test_a_decision_is_never_by_the_name_that_stands_for_none(nameless):
    environment.name_user()
    with pytest.raises(ConfigError, match="--by"):
        officer("")
    assert officer("A. Officer") == "A. Officer"


def test_monai_is_imported_for_a_user_without_a_name():
    code = (
        f"import os; os.getuid = lambda: {NAMELESS};"
        "from vgmedgen.process import environment; environment.settle();"
        "import monai.config; print('imported')"
    )
    env = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.stdout == "imported\n", done.stderr[-500:]


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("/a:/b", "/a:/b"),
        (":/a", "/a"),
        ("/a:", "/a"),
        ("/a::/b", "/a:/b"),
        (".:/a:x/../y", "/a"),
        (":", None),
        (".", None),
    ],
)
@pytest.mark.parametrize("name", importing.SEARCHED)
def test_a_search_path_keeps_whole_paths_alone(name, value, left):
    env = {name: value}
    assert importing.changed(env) == ([] if value == left else [name])
    importing.tidy(env)
    assert env.get(name) == left
    assert env["PYTHONSAFEPATH"] == "1"


def test_a_search_path_loses_a_kit_and_what_lies_in_it_and_never_our_own_code(tmp_path):
    kit = tmp_path / "kit"
    (kit / "lib").mkdir(parents=True)
    (tmp_path / "link").symlink_to(kit)
    beside = tmp_path / "kit-2"
    folders = [kit, kit / "lib", tmp_path / "link", beside, importing.OURS]
    env = {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    importing.tidy(env, [kit])
    assert env["PYTHONPATH"] == f"{beside}{os.pathsep}{importing.OURS}"
    importing.tidy(env, [importing.OURS])  # a kit inside a checkout, say
    assert str(importing.OURS) in env["PYTHONPATH"]


def test_what_a_search_path_brought_in_is_taken_out_again(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/nowhere")
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), "/nowhere", *sys.path])
    monkeypatch.chdir(tmp_path)
    assert importing.guard() == ["PYTHONPATH"]
    assert "" not in sys.path
    assert str(tmp_path) not in sys.path
    assert "/nowhere" in sys.path
    assert os.environ["PYTHONPATH"] == "/nowhere"


def test_a_child_tells_its_keeper_in_utf_8_whatever_the_locale(monkeypatch):
    from vgmedgen.process.children import Child

    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0"}.items():
        monkeypatch.setenv(name, value)
    said = []
    child = Child(
        "kid", [sys.executable, "-c", "print('\\u2713 M\\xfcller')"], hear=said.append
    )
    child.start()
    assert child.process is not None
    child.process.wait()
    assert child._pump is not None
    child._pump.join(10)
    assert said == ["✓ Müller"]
