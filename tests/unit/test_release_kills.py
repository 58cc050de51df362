"""An installation that is killed: what is in use is whole, and the next one succeeds."""

import shutil
import time

import numpy as np
import pytest

from tests.releases import KEY, STEPS, attempt, make, scratch
from vgmedgen.release.archive import pack
from vgmedgen.release.install import install_from
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
def site(bundle, old, tmp_path_factory):
    """Releases of a site that uses the older one; read only."""
    releases = tmp_path_factory.mktemp("site") / "releases"
    install_from(releases, bundle, old.folder, TRUSTED)
    return releases


@pytest.fixture(scope="module")
def carried(new, tmp_path_factory):
    """The later release as one file."""
    path = tmp_path_factory.mktemp("carried") / "r.vgrel"
    pack(new.folder, path)
    return path


def survives(releases, bundle, carried, old, new):
    """What is in use verifies, and installing again ends well; tells what was in use."""
    store = Store(releases)
    found = store.verify(store.current().name)
    assert found.digest in (digest(old.manifest), digest(new.manifest))
    for one in store.all():
        store.verify(one.name)  # whatever has its final name is whole
    assert install_from(releases, bundle, carried, TRUSTED) == digest(new.manifest)
    assert store.verify(digest(new.manifest)).current
    assert not scratch(releases)
    assert store.roll_back().digest == digest(old.manifest)
    return found.run


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_the_release_in_use_is_whole(
    bundle, site, carried, old, new, tmp_path, step, after
):
    releases = shutil.copytree(site, tmp_path / "releases")
    process = attempt(releases, bundle, carried, dies=step, after=after)
    process.join(60)
    assert process.exitcode == -9
    used = survives(releases, bundle, carried, old, new)
    assert used == ("r-new" if (step, after) == ("point", True) else "r-old")


def kill_at_random(times, bundle, site, carried, old, new, tmp_path, seed):
    draw = np.random.default_rng(seed)
    process = attempt(shutil.copytree(site, tmp_path / "timed"), bundle, carried)
    began = time.monotonic()  # without the start of a process
    assert process.answer.recv() == ""
    whole = time.monotonic() - began
    killed = 0
    for number in range(times):
        releases = shutil.copytree(site, tmp_path / f"releases-{number}")
        process = attempt(releases, bundle, carried)
        time.sleep(whole * draw.uniform(0, 1.1))
        process.kill()
        process.join(60)
        killed += process.exitcode == -9
        survives(releases, bundle, carried, old, new)
        shutil.rmtree(releases)
    return killed


def test_killed_at_random_points_the_release_in_use_is_whole(
    bundle, site, carried, old, new, tmp_path
):
    assert kill_at_random(8, bundle, site, carried, old, new, tmp_path, seed=0) >= 3


@pytest.mark.slow
def test_killed_fifty_times_the_release_in_use_is_whole(
    bundle, site, carried, old, new, tmp_path
):
    assert kill_at_random(50, bundle, site, carried, old, new, tmp_path, seed=1) >= 20
