"""An installation that is killed: what is in use is whole, and the next one succeeds."""

import shutil

import pytest

from tests.releases import STEPS, TRUSTED, attempt, kill_at_random, scratch
from vgmedgen.release.archive import pack
from vgmedgen.release.install import install_from
from vgmedgen.release.store import Store
from vgmedgen.release.verify import digest


@pytest.fixture(scope="module")
def packed(new_release, tmp_path_factory):
    """The later release as one file."""
    path = tmp_path_factory.mktemp("packed") / "r.vgrel"
    pack(new_release.folder, path)
    return path


def survives(releases, bundle, packed, old_release, new_release):
    """What is in use verifies, and installing again ends well; tells what was in use."""
    store = Store(releases)
    found = store.verify(store.current().name)
    assert found.digest in (digest(old_release.manifest), digest(new_release.manifest))
    for one in store.all():
        store.verify(one.name)  # whatever has its final name is whole
    assert install_from(releases, bundle, packed, TRUSTED) == digest(
        new_release.manifest
    )
    assert store.verify(digest(new_release.manifest)).current
    assert not scratch(releases)
    assert store.roll_back().digest == digest(old_release.manifest)
    return found.run


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_the_release_in_use_is_whole(
    bundle, old_installed, packed, old_release, new_release, tmp_path, step, after
):
    releases = shutil.copytree(old_installed, tmp_path / "releases")
    process = attempt(releases, bundle, packed, dies=step, after=after)
    process.join(60)
    assert process.exitcode == -9
    used = survives(releases, bundle, packed, old_release, new_release)
    assert used == ("r-new" if (step, after) == ("point", True) else "r-old")


def kill_installations(
    kills, bundle, old_installed, packed, old_release, new_release, tmp_path, seed
):
    def after(releases):
        survives(releases, bundle, packed, old_release, new_release)

    kill_at_random(kills, old_installed, packed, bundle, tmp_path, after, seed)


def test_killed_at_random_points_the_release_in_use_is_whole(
    bundle, old_installed, packed, old_release, new_release, tmp_path
):
    told = bundle, old_installed, packed, old_release, new_release, tmp_path
    kill_installations(5, *told, seed=0)


@pytest.mark.slow
def test_killed_fifty_times_the_release_in_use_is_whole(
    bundle, old_installed, packed, old_release, new_release, tmp_path
):
    told = bundle, old_installed, packed, old_release, new_release, tmp_path
    kill_installations(50, *told, seed=1)
