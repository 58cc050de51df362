"""What several unit test files share: releases, and the sites that installed them.

The originals are made once per session and are only read; who writes gets a copy.
"""

import shutil

import pytest


@pytest.fixture(scope="session")
def old_release(bundle, micro, tmp_path_factory):
    """A release; read it, do not write."""
    from tests.releases import make

    folder = tmp_path_factory.mktemp("old") / "release"
    return make(folder, bundle, micro.plan, run="r-old", year=2025)


@pytest.fixture(scope="session")
def new_release(bundle, micro, tmp_path_factory):
    """A later one; read it, do not write."""
    from tests.releases import make

    folder = tmp_path_factory.mktemp("new") / "release"
    return make(folder, bundle, micro.plan, run="r-new", seed=1, year=2026)


@pytest.fixture(scope="session")
def old_installed(bundle, old_release, tmp_path_factory):
    """Releases of a site that uses the older one; read them, do not write."""
    from tests.releases import TRUSTED
    from vgmedgen.release.install import install_from

    releases = tmp_path_factory.mktemp("site") / "releases"
    install_from(releases, bundle, old_release.folder, TRUSTED)
    return releases


@pytest.fixture
def releases(old_installed, tmp_path):
    """The same, to be written."""
    return shutil.copytree(old_installed, tmp_path / "releases")


@pytest.fixture(scope="session")
def by_year(bundle, micro, tmp_path_factory):
    """Releases of 2023, 2024 and 2025; read them, do not write."""
    from tests.releases import make

    folder = tmp_path_factory.mktemp("years")
    return {
        year: make(
            folder / f"r-{year}",
            bundle,
            micro.plan,
            run=f"r-{year}",
            seed=year,
            year=year,
        )
        for year in (2023, 2024, 2025)
    }


@pytest.fixture(scope="session")
def two_installed(bundle, by_year, tmp_path_factory):
    """A site that holds those of 2023 and 2025, the latter in use; read only."""
    from tests.releases import TRUSTED
    from vgmedgen.release.install import install_from

    releases = tmp_path_factory.mktemp("site") / "releases"
    for year in (2023, 2025):
        install_from(releases, bundle, by_year[year].folder, TRUSTED)
    return releases


@pytest.fixture
def store(two_installed, tmp_path):
    """The same, to be written."""
    from vgmedgen.release.store import Store

    return Store(shutil.copytree(two_installed, tmp_path / "releases"))


@pytest.fixture
def carried(by_year, tmp_path):
    """A copy of the release of 2025 that the test may write."""
    return shutil.copytree(by_year[2025].folder, tmp_path / "carried")


@pytest.fixture(scope="session")
def gated_site(bundle, micro, tmp_path_factory):
    """A dermoscopy site with a release, whose gate has been opened; read only."""
    from tests.gated import install_base, make_site, one_thread
    from vgmedgen.gate.release import ReleaseGate

    with one_thread():
        site = make_site(tmp_path_factory.mktemp("clinic"), bundle)
        install_base(site, micro.plan)
        ReleaseGate.of(site)
    return site


@pytest.fixture(scope="module")
def clinic(gated_site):
    """That site, for files whose every image has to come out the same; read only."""
    from tests.gated import one_thread

    with one_thread():
        yield gated_site


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """Pretrained models of micro size; read them, do not write."""
    from tests.hubs import make_hub

    folder = tmp_path_factory.mktemp("secret-place")
    make_hub(folder)
    return folder


@pytest.fixture
def place(hub, tmp_path):
    """A copy of them that the test may write."""
    return shutil.copytree(hub, tmp_path / "place")
