"""Installing on a disk that is full, and while another installation runs."""

import os
import shutil
import subprocess

import pytest

from tests.releases import KEY, attempt, contents, make, scratch
from vgmedgen.errors import StateError
from vgmedgen.release.install import current, install_from
from vgmedgen.release.store import Store
from vgmedgen.release.verify import digest

TRUSTED = [KEY.public]


@pytest.fixture(scope="module")
def old(bundle, micro, tmp_path_factory):
    """A release; read it, do not write."""
    folder = tmp_path_factory.mktemp("old") / "release"
    return make(folder, bundle, micro.plan, run="r-old", year=2025)


@pytest.fixture(scope="module")
def new(bundle, micro, tmp_path_factory):
    """A later one."""
    folder = tmp_path_factory.mktemp("new") / "release"
    return make(folder, bundle, micro.plan, run="r-new", seed=1, year=2026)


@pytest.fixture(scope="module")
def installed_old(bundle, old, tmp_path_factory):
    releases = tmp_path_factory.mktemp("site") / "releases"
    install_from(releases, bundle, old.folder, TRUSTED)
    return releases


@pytest.fixture
def releases(installed_old, tmp_path):
    """A site that uses the older release; the test may write it."""
    return shutil.copytree(installed_old, tmp_path / "releases")


def unchanged(releases, old):
    """The older release is in use, whole and alone, and nothing else lies about."""
    store = Store(releases)
    assert store.current().digest == old.signature.release
    store.verify(store.current().name)
    assert [one.name for one in store.all()] == [store.current().name]
    return not scratch(releases)


def test_a_file_that_cannot_grow_ends_in_one_line(bundle, releases, old, new):
    largest = max(map(len, contents(current(releases)).values()))
    for limit in (2000, largest - 1):
        said = attempt(releases, bundle, new.folder, limit=limit).answer.recv()
        assert said.startswith("VG55 cannot ")
        assert "\n" not in said
        assert unchanged(releases, old)
    install_from(releases, bundle, new.folder, TRUSTED)


@pytest.fixture
def small_disk(tmp_path):
    """A disk that holds one installed release and not two."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:  # noqa: PLW1510
        pytest.skip("no disk of one's own can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


@pytest.mark.parametrize("share", [1.02, 1.2, 1.5, 1.7, 1.9])
def test_a_full_disk_ends_in_one_line(small_disk, bundle, releases, old, new, share):
    site = shutil.copytree(releases, small_disk / "releases")
    used = os.statvfs(small_disk)
    room = int((used.f_blocks - used.f_bfree) * used.f_frsize * share)
    command = f"mount -o remount,size={room} {small_disk}"
    subprocess.run(command.split(), check=True)
    said = attempt(site, bundle, new.folder).answer.recv()
    assert said.startswith("VG55 cannot ")
    assert "No space left" in said
    assert "\n" not in said
    assert unchanged(site, old)


def test_two_installations_at_once_take_turns(bundle, releases, new):
    started = [attempt(releases, bundle, new.folder) for _ in range(2)]
    assert [process.answer.recv() for process in started] == ["", ""]
    assert Store(releases).verify(digest(new.manifest)).current
    assert not scratch(releases)


def test_an_installation_that_never_ends_is_not_waited_for_without_end(
    bundle, releases, new, monkeypatch
):
    from vgmedgen.process.lock import only_one
    from vgmedgen.release import store

    monkeypatch.setattr(store, "PATIENCE", 0.2)
    with (
        only_one(releases / store.LOCK, "a test"),
        pytest.raises(StateError, match="running already"),
    ):
        install_from(releases, bundle, new.folder, TRUSTED)
