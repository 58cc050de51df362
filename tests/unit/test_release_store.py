"""Releases side by side: which is in use, which was before, and none that is damaged."""

import json
import shutil

import pytest

from tests.releases import KEY, contents, make, scratch
from vgmedgen.errors import ReleaseError, StateError, TrustError
from vgmedgen.release.install import install_from
from vgmedgen.release.store import DAMAGED, Store, current

RUNS = ("r-1", "r-2", "r-3")  # in the order in which they were installed


@pytest.fixture(scope="module")
def filled(bundle, micro, tmp_path_factory):
    """A site with three releases, the third in use; read only."""
    folder = tmp_path_factory.mktemp("site")
    for number, run in enumerate(RUNS):
        source = folder / run
        make(source, bundle, micro.plan, run=run, seed=number, year=2024 + number)
        install_from(folder / "releases", bundle, source, [KEY.public])
    return folder / "releases"


@pytest.fixture
def store(filled, tmp_path):
    """The same, to be written."""
    return Store(shutil.copytree(filled, tmp_path / "releases"))


@pytest.fixture
def names(store):
    return {one.run: one.name for one in store.all()}


def test_releases_are_listed_the_last_installed_first(store):
    assert [one.run for one in store.all()] == ["r-3", "r-2", "r-1"]
    assert [one.current for one in store.all()] == [True, False, False]
    one = store.current()
    assert one.digest.startswith(one.name)
    assert len(one.name) == 16
    assert (one.run, one.coordinator) == ("r-3", KEY.public)
    assert one.created == "2026-01-02T03:04:05Z"
    assert one.installed.endswith("Z")
    assert current(store.releases) == one.pipeline


def test_a_site_without_releases_says_so(tmp_path):
    empty = Store(tmp_path / "releases")
    assert empty.all() == []
    for ask in (empty.current, empty.before, lambda: current(tmp_path / "releases")):
        with pytest.raises(ReleaseError, match="no installed release yet"):
            ask()
    with pytest.raises(ReleaseError, match="installed are: none"):
        empty.find("abc")
    with pytest.raises(ReleaseError, match="no installed release yet"):
        empty.roll_back()


def test_a_release_is_found_by_the_start_of_its_name(store, names):
    for one in store.all():
        for name in (one.digest, one.name, one.name[:6]):
            assert store.find(name) == one
    for wrong in ("", "zz", names["r-1"] + "0" * 48, "../releases"):
        with pytest.raises(ReleaseError, match="no release starts with"):
            store.find(wrong)


def test_a_start_that_fits_several_is_told(store, names):
    twin = names["r-1"][:8] + "0" * 8
    shutil.copytree(store.releases / names["r-1"], store.releases / twin)
    with pytest.raises(ReleaseError, match="2 releases start with"):
        store.find(names["r-1"][:8])


def test_using_a_release_moves_the_pointer_and_rolling_back_moves_it_back(store, names):
    used = store.use(names["r-1"][:8])
    assert used.current
    assert store.current().run == "r-1"
    assert store.before().run == "r-3"
    assert store.roll_back().run == "r-3"
    assert store.current().run == "r-3"


def test_rolling_back_goes_through_what_was_in_use_before(store):
    assert store.roll_back().run == "r-2"
    assert store.roll_back().run == "r-1"
    assert store.before() is None
    with pytest.raises(ReleaseError, match="in use before"):
        store.roll_back()
    assert store.current().run == "r-1"


def test_using_what_is_in_use_changes_nothing(store, names):
    store.use(names["r-3"])
    assert store.roll_back().run == "r-2"


def test_every_file_of_an_installed_release_is_verified(store, names):
    folder = store.releases / names["r-2"]
    files = contents(folder)
    assert len(files) > 25
    for name, held in files.items():
        flipped = bytearray(held)
        flipped[len(held) // 2] ^= 1
        (folder / name).write_bytes(flipped)
        with pytest.raises((ReleaseError, TrustError)):
            store.verify(names["r-2"])
        with pytest.raises((ReleaseError, TrustError)):
            store.use(names["r-2"])
        with pytest.raises((ReleaseError, TrustError)):
            store.roll_back()
        (folder / name).write_bytes(held)
        assert store.current().run == "r-3"
    assert store.verify(names["r-2"]).run == "r-2"


def test_a_file_more_or_less_and_a_link_are_found(store, names):
    pipeline = store.releases / names["r-2"] / "pipeline"
    (pipeline / "vae" / "more.json").write_text("{}")
    with pytest.raises(ReleaseError, match=r"pipeline/vae/more\.json has changed"):
        store.verify(names["r-2"])
    (pipeline / "vae" / "more.json").unlink()
    config = pipeline / "vae" / "config.json"
    shutil.move(config, store.releases.parent / "config.json")
    with pytest.raises(ReleaseError, match=r"vae/config\.json"):
        store.verify(names["r-2"])
    config.symlink_to(store.releases.parent / "config.json")
    with pytest.raises(ReleaseError, match=r"vae/config\.json"):
        store.verify(names["r-2"])


def test_another_release_under_this_ones_name_is_found(store, names):
    one, other = (store.releases / names[run] for run in ("r-1", "r-2"))
    shutil.rmtree(one)
    shutil.copytree(other, one)
    with pytest.raises(ReleaseError, match="has changed"):
        store.verify(names["r-1"])


def test_a_release_that_is_not_in_use_can_be_removed(store, names):
    store.remove(names["r-1"])
    assert [one.run for one in store.all()] == ["r-3", "r-2"]
    with pytest.raises(ReleaseError, match="is in use"):
        store.remove(names["r-3"])
    with pytest.raises(ReleaseError, match="no release starts"):
        store.remove(names["r-1"])
    assert not scratch(store.releases)
    store.remove(names["r-2"])
    with pytest.raises(ReleaseError, match="in use before"):
        store.roll_back()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"digest": 3}', "\xff"])
def test_a_damaged_one_is_listed_and_can_be_removed(store, names, content):
    path = store.releases / names["r-1"] / "installed.json"
    path.write_bytes(content.encode("latin-1"))
    assert {one.run for one in store.all()} == {"r-3", "r-2", DAMAGED}
    with pytest.raises(ReleaseError, match="remove it and install it again"):
        store.use(names["r-1"])
    store.remove(names["r-1"])
    assert [one.run for one in store.all()] == ["r-3", "r-2"]


def test_a_pointer_that_names_nothing_is_told(store, names):
    (store.releases / "current").write_text("../../etc")
    with pytest.raises(ReleaseError, match="it names no release"):
        store.current()
    (store.releases / "current").write_text("f" * 16)
    with pytest.raises(ReleaseError, match="install it again"):
        store.current()
    store.use(names["r-2"])
    assert store.current().run == "r-2"


def test_a_damaged_pointer_does_not_hide_what_is_installed(store):
    (store.releases / "current").write_text("nonsense")
    assert [one.run for one in store.all()] == ["r-3", "r-2", "r-1"]
    assert not any(one.current for one in store.all())
    assert store.use(store.all()[1].digest).run == "r-2"
    assert store.current().run == "r-2"


def test_what_a_release_was_before_is_kept_where_it_is_verified(store, names):
    told = json.loads((store.releases / names["r-3"] / "installed.json").read_text())
    assert told["before"] == names["r-2"]
    store.use(names["r-1"])
    for name in names.values():
        store.verify(name)


def test_a_disk_that_refuses_is_told_in_one_line(store, names, monkeypatch):
    def refuses(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(shutil, "rmtree", refuses)
    with pytest.raises(StateError, match="Read-only file system") as caught:
        store.remove(names["r-1"])
    assert "\n" not in str(caught.value)
