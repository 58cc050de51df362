"""A damaged release in use that is installed anew: it is never gone meanwhile."""

import ctypes
import errno
import os
import shutil
from pathlib import Path

import pytest

from tests.releases import (
    RENAMES,
    TRUSTED,
    attempt,
    contents,
    kill_at_random,
    name_of,
    scratch,
)
from vgmedgen.errors import ReleaseError, StateError
from vgmedgen.release import folders, store
from vgmedgen.release.folders import exchange
from vgmedgen.release.install import install_from
from vgmedgen.release.installed import check
from vgmedgen.release.store import ASIDE, CURRENT, NEXT, Store

SPOILT = "pipeline/hffm/config.json"


@pytest.fixture(scope="module")
def two(old_installed, bundle, new_release, tmp_path_factory):
    """A site whose later release, the one in use, is damaged; read only."""
    releases = tmp_path_factory.mktemp("two") / "releases"
    shutil.copytree(old_installed, releases)
    install_from(releases, bundle, new_release.folder, TRUSTED)
    path = releases / name_of(new_release) / SPOILT
    path.write_bytes(path.read_bytes() + b" ")
    return releases


@pytest.fixture
def spoilt(two, tmp_path):
    """The same, to be written."""
    return shutil.copytree(two, tmp_path / "spoilt")


@pytest.fixture
def no_exchange(monkeypatch):
    """A file system without the step that exchanges two names."""
    monkeypatch.setattr(store, "exchange", lambda *_: False)


def pipeline_in_use(releases):
    """What a reader who holds no lock finds: the folder that `current` names."""
    name = (releases / CURRENT).read_text()
    return contents(releases / name / "pipeline")


def whole(releases, name):
    """Whether the release of that name is as it was installed."""
    try:
        check(Store(releases).find(name))
    except ReleaseError:
        return False
    return True


def ends_well(releases, bundle, old_release, new_release):
    """Installing again puts the whole release to use, and the earlier one is kept."""
    install_from(releases, bundle, new_release.folder, TRUSTED)
    held = Store(releases, TRUSTED)
    assert held.verify(name_of(new_release)).current
    assert held.before().name == name_of(old_release)
    assert not scratch(releases)


# killed

MOMENTS = [
    (step, after)
    for step in ("describe", "announce", "place", "sync", "point")
    for after in (False, True)
]


@pytest.mark.parametrize(("step", "after"), MOMENTS)
def test_killed_at_a_step_the_release_in_use_is_the_damaged_or_the_whole_one(
    bundle, spoilt, old_release, new_release, step, after
):
    damaged = pipeline_in_use(spoilt)
    process = attempt(spoilt, bundle, new_release.folder, dies=step, after=after)
    process.join(60)
    assert process.exitcode == -9
    placed = (step, after) in MOMENTS[MOMENTS.index(("place", True)) :]
    assert whole(spoilt, name_of(new_release)) == placed
    assert (pipeline_in_use(spoilt) == damaged) == (not placed)
    ends_well(spoilt, bundle, old_release, new_release)


def test_where_two_names_can_be_exchanged_nothing_is_moved_aside(
    bundle, spoilt, pair, old_release, new_release
):
    if not exchange(*pair):
        pytest.skip("this file system cannot exchange two names")
    process = attempt(spoilt, bundle, new_release.folder, dies="aside")
    assert process.answer.recv() == ""  # it never came to that
    ends_well(spoilt, bundle, old_release, new_release)


FALLBACK = [
    ("announce", True),
    *((step, after) for step in ("aside", "in place") for after in (False, True)),
    ("place", True),
]


@pytest.mark.parametrize(("step", "after"), FALLBACK)
def test_killed_without_an_exchange_what_made_room_comes_back(
    bundle, spoilt, old_release, new_release, step, after
):
    damaged = pipeline_in_use(spoilt)
    process = attempt(
        spoilt, bundle, new_release.folder, dies=step, after=after, plain=True
    )
    process.join(60)
    assert process.exitcode == -9
    with Store(spoilt).alone():
        pass  # whatever is done next with the releases of a site
    placed = (step, after) in (("in place", True), ("place", True))
    assert whole(spoilt, name_of(new_release)) == placed
    assert (pipeline_in_use(spoilt) == damaged) == (not placed)
    assert not scratch(spoilt)
    ends_well(spoilt, bundle, old_release, new_release)


@pytest.mark.parametrize("plain", [False, True])
def test_a_damaged_release_that_is_not_in_use_is_not_put_to_use_by_a_kill(
    bundle, spoilt, old_release, new_release, plain
):
    (spoilt / CURRENT).write_text(name_of(old_release))
    for step, after in (("announce", True), ("place", False)):
        process = attempt(
            spoilt, bundle, new_release.folder, dies=step, after=after, plain=plain
        )
        process.join(60)
        assert process.exitcode == -9
        assert (spoilt / NEXT).read_text() == name_of(new_release)
        with Store(spoilt).alone():
            assert Store(spoilt).current().name == name_of(old_release)
    process = attempt(
        spoilt, bundle, new_release.folder, dies="place", after=True, plain=plain
    )
    process.join(60)
    with Store(spoilt).alone():
        assert Store(spoilt).current().name == name_of(new_release)
    ends_well(spoilt, bundle, old_release, new_release)


def kill_replacements(kills, bundle, two, old_release, new_release, tmp_path, seed):
    damaged, whole_ones = pipeline_in_use(two), set()

    def survives(releases):
        found = pipeline_in_use(releases)
        if found != damaged:
            assert whole(releases, name_of(new_release))
        whole_ones.add(found != damaged)
        ends_well(releases, bundle, old_release, new_release)

    source = new_release.folder
    kill_at_random(kills, two, source, bundle, tmp_path, survives, seed)
    return whole_ones


def test_killed_at_random_points_a_release_is_in_use(
    bundle, two, old_release, new_release, tmp_path
):
    kill_replacements(4, bundle, two, old_release, new_release, tmp_path, seed=3)


@pytest.mark.slow
def test_killed_fifty_times_a_release_is_in_use(
    bundle, two, old_release, new_release, tmp_path
):
    told = bundle, two, old_release, new_release, tmp_path
    assert kill_replacements(50, *told, seed=4) == {False, True}


# refused by the disk


def refusing(monkeypatch, step):
    """One of the renames fails; tells how often that happened."""
    refused, real = [], Path.rename

    def rename(path, target):
        if RENAMES[step](path, target):
            refused.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    return refused


@pytest.mark.parametrize("step", RENAMES)
def test_a_rename_that_fails_leaves_the_damaged_one_in_its_place(
    bundle, spoilt, old_release, new_release, no_exchange, monkeypatch, step
):
    damaged = pipeline_in_use(spoilt)
    with monkeypatch.context() as patch:
        refused = refusing(patch, step)
        with pytest.raises(StateError, match="Input/output error"):
            install_from(spoilt, bundle, new_release.folder, TRUSTED)
    assert len(refused) == 1
    assert pipeline_in_use(spoilt) == damaged
    assert not scratch(spoilt)
    ends_well(spoilt, bundle, old_release, new_release)


@pytest.mark.parametrize("used", ["new", "old"])
@pytest.mark.parametrize("step", ["sync", "point"])
def test_what_was_mended_stays_mended_when_a_later_step_fails(
    bundle, spoilt, old_release, new_release, monkeypatch, step, used
):
    from vgmedgen.release import install as installing

    def fails(*_):
        raise OSError(28, "No space left on device")

    in_use = name_of({"new": new_release, "old": old_release}[used])
    (spoilt / CURRENT).write_text(in_use)
    with monkeypatch.context() as patch:
        patch.setattr({"sync": installing, "point": Store}[step], step, fails)
        with pytest.raises(StateError, match="No space"):
            install_from(spoilt, bundle, new_release.folder, TRUSTED)
    assert whole(spoilt, name_of(new_release))
    assert Store(spoilt).current().name == in_use
    assert not scratch(spoilt)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("kind", ["file", "link", "empty folder"])
def test_what_is_no_release_makes_room_for_one(
    bundle, releases, old_release, new_release, tmp_path, monkeypatch, kind, plain
):
    if plain:
        monkeypatch.setattr(store, "exchange", lambda *_: False)
    place, elsewhere = releases / name_of(new_release), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("")
    {
        "file": lambda: place.write_text("x"),
        "link": lambda: place.symlink_to(elsewhere),
        "empty folder": place.mkdir,
    }[kind]()
    ends_well(releases, bundle, old_release, new_release)
    assert not place.is_symlink()
    assert (elsewhere / "kept").is_file()


def test_a_release_that_was_being_removed_does_not_come_back(spoilt, old_release):
    away = spoilt / f"{store.SCRATCH}away-{name_of(old_release)}"
    (spoilt / name_of(old_release)).rename(away)  # and killed
    with Store(spoilt).alone():
        pass
    assert not (spoilt / name_of(old_release)).exists()
    assert not scratch(spoilt)


@pytest.mark.parametrize("name", ["junk", "../x", "f" * 17])
def test_nothing_comes_back_under_a_name_that_no_release_has(releases, name):
    (releases / f"{ASIDE}{name.replace('/', '-')}").mkdir()
    before = {path.name for path in releases.iterdir() if path.name[0] != "."}
    with Store(releases).alone():
        pass
    assert {p.name for p in releases.iterdir() if p.name[0] != "."} == before
    assert not scratch(releases)


# the exchange itself


@pytest.fixture
def pair(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "1").write_text("")
    (other / "2").write_text("")
    return one, other


def test_two_folders_have_each_others_name(pair):
    one, other = pair
    if not exchange(one, other):
        pytest.skip("this file system cannot exchange two names")
    assert contents(one) == {"2": b""}
    assert contents(other) == {"1": b""}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, None])
def test_a_system_that_cannot_exchange_says_so_and_does_nothing(
    pair, monkeypatch, number
):
    class Library:
        pass

    def refuses(*_):
        ctypes.set_errno(number)
        return -1

    if number is not None:
        Library.renameat2 = staticmethod(refuses)
    monkeypatch.setattr(folders.ctypes, "CDLL", lambda *_, **__: Library())
    assert not exchange(*pair)
    assert [sorted(contents(path)) for path in pair] == [["1"], ["2"]]


def test_what_the_disk_refuses_to_exchange_is_an_error(pair):
    one, other = pair
    shutil.rmtree(other)
    with pytest.raises(OSError, match="No such file"):
        exchange(one, other)
    assert sorted(contents(one)) == ["1"]
