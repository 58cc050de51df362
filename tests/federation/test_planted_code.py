"""Files with names of modules, planted where commands run and in what a coordinator sends.

Real commands and the processes that they keep; whatever imports one of the files leaves
its name in a list.
"""

import os
import subprocess
import sys

import pytest

from server.registry import Registry
from tests.federation.processes import Deployment, command, wait
from tests.federation.toys import client_of, config, play, prepare, toys
from vgmedgen.process import environment
from vgmedgen.process.children import Child, module

NAMES = (
    *("client", "server", "vgmedgen", "simulations", "flwr", "torch", "monai", "numpy"),
    *("yaml", "omegaconf", "typer", "rich", "cryptography", "httpx", "uvicorn", "ray"),
    *("safetensors", "PIL", "pydicom", "logging", "sqlite3", "pip", "setuptools"),
    *("sitecustomize", "usercustomize"),
)
ONE_ROUND = ("federation.align_rounds=1", "federation.generate_rounds=1")


class Planted:
    """Where the files lie, and which of them ran."""

    def __init__(self, home):
        self.marker = home / "ran"
        self.folder = home / "planted"
        self.plant(self.folder)

    def plant(self, folder):
        """Put a file of each name into `folder`."""
        folder.mkdir(exist_ok=True)
        for name in NAMES:
            told = f"with open({str(self.marker)!r}, 'a') as f: f.write({name!r} + ' ')"
            (folder / f"{name}.py").write_text(told, encoding="utf-8")

    @property
    def ran(self):
        """Names of the files that were imported so far."""
        return self.marker.read_text("utf-8").split() if self.marker.exists() else []


@pytest.fixture
def planted(tmp_path):
    return Planted(tmp_path)


def search_path(planted):
    """A PYTHONPATH that names the working folder in every way there is."""
    return os.pathsep.join(["", "/nowhere", ".", "x/..", str(planted.folder)])


@pytest.mark.parametrize("path", [None, os.pathsep + "/nowhere", "."])
def test_a_planted_file_would_run_if_python_were_started_as_usual(planted, path):
    env = os.environ | {"PYTHONSAFEPATH": ""}  # as Python is by itself
    env |= {} if path is None else {"PYTHONPATH": path}
    argv = [sys.executable, "-m", "client.node", "runner", "."]
    subprocess.run(argv, cwd=planted.folder, env=env, check=False, capture_output=True)
    assert "client" in planted.ran


@pytest.mark.parametrize(
    ("owner", "role"),
    [
        ("client.node", "supernode"),
        ("client.node", "runner"),
        ("server.process", "superlink"),
        ("server.process", "player"),
    ],
)
def test_no_child_imports_from_the_working_folder_whatever_the_search_path_says(
    planted, monkeypatch, owner, role
):
    monkeypatch.setenv("PYTHONPATH", search_path(planted))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(planted.folder)
    environment.keep_out(planted.folder)  # as both supervisors do
    said = []
    child = Child("kid", module(owner, role, str(planted.folder)), hear=said.append)
    child.start()
    wait(lambda: not child.running, what="a child without a folder to work in")
    assert child._pump is not None
    child._pump.join(10)
    child.stop()
    assert planted.ran == []
    assert any("VG" in line or "Error" in line for line in said)  # it ran, and refused


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vgmedgen-client", ("check", "--site", "site.yaml")),
        ("vgmedgen-client", ("start", "--site", "site.yaml")),
        ("vgmedgen-server", ("start", "--kits", ".")),
        ("vgmedgen", ("data", "check", "table", "data.root=.")),
        ("vgmedgen-simulate", ("data.root=nowhere", "experiment=busi-dirichlet")),
    ],
)
def test_no_command_imports_from_the_working_folder(planted, name, words):
    (planted.folder / "site.yaml").write_text("name: somewhere\n", encoding="utf-8")
    done = command(name, *words, cwd=planted.folder, check=False)
    assert done.returncode in {1, 4}
    assert planted.ran == []
    assert "Traceback" not in done.stderr


def test_a_search_path_with_an_empty_entry_is_told_and_left_out(planted, monkeypatch):
    # what is imported before the first line of ours cannot be kept out; torch can
    for path in planted.folder.iterdir():
        if path.stem not in {"torch", "monai", "PIL"}:
            path.unlink()
    (planted.folder / "site.yaml").write_text("name: somewhere\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep + "/nowhere")
    words = ("check", "--site", "site.yaml")
    done = command("vgmedgen-client", *words, cwd=planted.folder, check=False)
    assert "PYTHONPATH names the working folder" in done.stderr
    assert planted.ran == []


@pytest.mark.slow
@pytest.mark.simulation
def test_no_process_of_ray_imports_from_the_working_folder(planted, monkeypatch):
    sites = toys(2)
    launch = prepare(
        planted.folder.parent, sites, config(generate_rounds=1, wait_s=900.0)
    )
    monkeypatch.chdir(planted.folder)
    play(launch, client_of(sites), sites, engine_name="ray")
    assert Registry(planted.folder.parent).weights(2)
    assert planted.ran == []


@pytest.mark.simulation
def test_a_whole_run_from_planted_folders_runs_installed_code_alone(
    planted, tmp_path, bundle, hospitals
):
    place = Deployment(tmp_path / "place", bundle, hospitals[:2])
    for folder in (
        place.kits,
        place.kits / "coordinator",
        *map(place.site, place.names),
    ):
        planted.plant(folder)
    try:
        place.start_server("--page", cwd=place.kits)
        for name in place.names:
            place.start_node(name, cwd=place.site(name))
        place.wait_nodes()
        run = place.run(*ONE_ROUND)
        assert place.ended(run)["state"] == "finished"
        for name in place.names:
            command("vgmedgen-client", "check", cwd=place.site(name), check=False)
    finally:
        place.stop()
    assert planted.ran == []
