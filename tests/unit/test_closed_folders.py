"""What a user may not read: real folders, a real user without rights, one line each."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app as client
from vgmedgen.cli import app
from vgmedgen.cli.shared import run_cli
from vgmedgen.data.layouts import LAYOUTS, write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.errors import DataError
from vgmedgen.gate.folder import files_of

NOBODY = 65534
SITE_VERBS = (["policy", "validate"], ["runs"], ["audit", "show"])

runner = CliRunner()


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory):
    """Everything that a child needs, which could not import it any more."""
    folder = tmp_path_factory.mktemp("warm")
    for modality, layout in LAYOUTS.items():
        write_phantoms(modality, folder / modality, 2, 0, 48, tint_of(0))
        told = runner.invoke(app, ["data", "check", layout, str(folder / modality)])
        assert told.exit_code == 0, told.output
    (folder / "site.yaml").write_text("name: a\n", encoding="utf-8")
    for words in SITE_VERBS:
        runner.invoke(client, [*words, "--site", str(folder)])


@pytest.fixture
def home():
    """A folder that every user may enter; pytest's own are its user's alone."""
    folder = Path(tempfile.mkdtemp(prefix="vgmedgen-closed-"))
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def as_nobody(work):
    """What `work` prints, and its exit status, in a child without rights.

    A fork, since another user could not import what lies in the home of this one.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.dup2(write, 1)
            os.dup2(write, 2)
            sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
            sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
            work()
            status = 0
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        except BaseException as error:  # noqa: BLE001
            sys.stdout.write(f"Traceback {type(error).__name__} {error}\n")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as stream:
        said = stream.read()
    return said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check(layout, root):
    words = ["vgmedgen", "data", "check", layout, str(root)]

    def work():
        sys.argv = words
        run_cli(app, "vgmedgen")

    return as_nobody(work)


def drawn(home, modality):
    """Phantoms below `home`/set, and what `data check` calls their layout."""
    write_phantoms(modality, home / "set", 6, 0, 48, tint_of(0))
    inner = [path for path in (home / "set").iterdir() if path.is_dir()]
    if len(inner) == 1:  # some layouts have the dataset one folder below
        inner[0].rename(home / "inner")
        shutil.rmtree(home / "set")
        (home / "inner").rename(home / "set")
    for path in [home / "set", *(home / "set").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return LAYOUTS[modality]


@pytest.mark.parametrize("modality", sorted(LAYOUTS))
@pytest.mark.parametrize("name", ["a-closed-one", "lost+found", "zz"])
def test_a_closed_folder_beside_the_dataset_is_passed_over(home, modality, name):
    layout = drawn(home, modality)
    (home / name).mkdir(mode=0o700)
    (home / name).chmod(0)
    said, status = check(layout, home)
    assert status == 0, said
    assert "6 images" in said


@pytest.mark.parametrize("modality", sorted(LAYOUTS))
@pytest.mark.parametrize("mode", [0o000, 0o600, 0o100])
def test_a_closed_dataset_is_refused_by_name(home, modality, mode):
    layout = drawn(home, modality)
    (home / "set").chmod(mode)  # closed, or listed and not entered, or the other way
    for root in (home, home / "set"):
        said, status = check(layout, root)
        assert status == 1, said
        assert said.count("\n") == 1
        assert f"{home / 'set'}" in said
        assert "permission denied" in said
        assert said.endswith("[VG20]\n")


@pytest.mark.parametrize("modality", sorted(LAYOUTS))
def test_a_closed_folder_inside_the_dataset_is_refused_by_name(home, modality):
    layout = drawn(home, modality)
    closed = next(path for path in (home / "set").rglob("*") if path.is_dir())
    closed.chmod(0)
    said, status = check(layout, home / "set")
    assert status == 1, said
    assert str(closed) in said
    assert said.endswith("[VG20]\n")
    assert "Traceback" not in said


def test_a_root_below_a_closed_folder_is_refused_by_name(home):
    layout = drawn(home / "closed", "ultrasound")
    (home / "closed").chmod(0)
    said, status = check(layout, home / "closed" / "set")
    assert status == 1
    assert str(home / "closed" / "set") in said
    assert said.endswith("[VG20]\n")


def test_an_image_that_may_not_be_read_is_refused_by_name(home):
    layout = drawn(home, "ultrasound")
    image = next(p for p in (home / "set").rglob("*.png") if "_mask" not in p.name)
    image.chmod(0)
    said, status = check(layout, home / "set")
    assert status == 1
    assert str(image) in said
    assert said.endswith("[VG20]\n")


def test_a_gate_never_passes_over_a_folder_that_it_cannot_read(home):
    drawn(home, "ultrasound")
    closed = next(path for path in (home / "set").rglob("*") if path.is_dir())
    closed.chmod(0)

    def work():
        with pytest.raises(DataError, match="permission denied; nothing was compared"):
            files_of([home / "set"])

    said, status = as_nobody(work)
    assert (said, status) == ("", 0)


def test_a_closed_site_folder_ends_a_command_in_one_line(home):
    (home / "site").mkdir()
    (home / "site" / "site.yaml").write_text("name: a\n", encoding="utf-8")
    (home / "site").chmod(0)
    for words in SITE_VERBS:

        def work(words=words):
            sys.argv = ["vgmedgen-client", *words, "--site", str(home / "site")]
            run_cli(client, "vgmedgen-client")

        said, status = as_nobody(work)
        assert status == 1, said
        assert said.count("\n") == 1, said
        assert str(home / "site") in said
        assert "Traceback" not in said
