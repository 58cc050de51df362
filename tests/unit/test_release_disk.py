"""Installing on a disk that is full, and while another installation runs."""

import os
import shutil
import subprocess

import pytest

from tests.releases import TRUSTED, attempt, contents, scratch, unchanged
from vgmedgen.errors import StateError
from vgmedgen.release.install import current, install_from
from vgmedgen.release.store import Store
from vgmedgen.release.verify import digest


def test_a_file_that_cannot_grow_ends_in_one_line(
    bundle, releases, old_release, new_release
):
    largest = max(map(len, contents(current(releases)).values()))
    for limit in (2000, largest - 1):
        said = attempt(releases, bundle, new_release.folder, limit=limit).answer.recv()
        assert said.startswith("VG55 cannot ")
        assert "\n" not in said
        assert unchanged(releases, old_release)
    install_from(releases, bundle, new_release.folder, TRUSTED)


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
def test_a_full_disk_ends_in_one_line(
    small_disk, bundle, releases, old_release, new_release, share
):
    site = shutil.copytree(releases, small_disk / "releases")
    used = os.statvfs(small_disk)
    room = int((used.f_blocks - used.f_bfree) * used.f_frsize * share)
    command = f"mount -o remount,size={room} {small_disk}"
    subprocess.run(command.split(), check=True)
    said = attempt(site, bundle, new_release.folder).answer.recv()
    assert said.startswith("VG55 cannot ")
    assert "No space left" in said
    assert "\n" not in said
    assert unchanged(site, old_release)


def test_two_installations_at_once_take_turns(bundle, releases, new_release):
    started = [attempt(releases, bundle, new_release.folder) for _ in range(2)]
    assert [process.answer.recv() for process in started] == ["", ""]
    assert Store(releases).verify(digest(new_release.manifest)).current
    assert not scratch(releases)


def test_an_installation_that_never_ends_is_not_waited_for_without_end(
    bundle, releases, new_release, monkeypatch
):
    from vgmedgen.process.lock import only_one
    from vgmedgen.release import store

    monkeypatch.setattr(store, "PATIENCE", 0.2)
    with (
        only_one(releases / store.LOCK, "a test"),
        pytest.raises(StateError, match="running already"),
    ):
        install_from(releases, bundle, new_release.folder, TRUSTED)
