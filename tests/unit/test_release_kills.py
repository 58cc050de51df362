"""An installation that is killed: what is in use is whole, and the next one succeeds."""

import shutil
import time

import numpy as np
import pytest

from tests.releases import STEPS, TRUSTED, attempt, scratch
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


def kill_at_random(
    times, bundle, old_installed, packed, old_release, new_release, tmp_path, seed
):
    draw = np.random.default_rng(seed)
    process = attempt(
        shutil.copytree(old_installed, tmp_path / "timed"), bundle, packed
    )
    began = time.monotonic()  # without the start of a process
    assert process.answer.recv() == ""
    whole = time.monotonic() - began
    killed = 0
    for number in range(times):
        releases = shutil.copytree(old_installed, tmp_path / f"releases-{number}")
        process = attempt(releases, bundle, packed)
        time.sleep(whole * draw.uniform(0, 1.1))
        process.kill()
        process.join(60)
        killed += process.exitcode == -9
        survives(releases, bundle, packed, old_release, new_release)
        shutil.rmtree(releases)
    return killed


def test_killed_at_random_points_the_release_in_use_is_whole(
    bundle, old_installed, packed, old_release, new_release, tmp_path
):
    assert (
        kill_at_random(
            8, bundle, old_installed, packed, old_release, new_release, tmp_path, seed=0
        )
        >= 3
    )


@pytest.mark.slow
def test_killed_fifty_times_the_release_in_use_is_whole(
    bundle, old_installed, packed, old_release, new_release, tmp_path
):
    assert (
        kill_at_random(
            50,
            bundle,
            old_installed,
            packed,
            old_release,
            new_release,
            tmp_path,
            seed=1,
        )
        >= 20
    )
