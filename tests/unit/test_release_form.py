"""A release of another form: refused in one line before all else, usable once installed."""

import json
import shutil
from datetime import UTC, datetime

import pytest

from tests.releases import KEY, TRUSTED, contents, name_of, unchanged
from vgmedgen.errors import ReleaseError
from vgmedgen.release import facts
from vgmedgen.release.archive import opened, pack
from vgmedgen.release.install import install, install_from
from vgmedgen.release.installed import describe
from vgmedgen.release.signature import FILE, sign
from vgmedgen.release.store import Store
from vgmedgen.release.verify import digest, manifest_json, verify

WHEN = datetime(2025, 5, 1, tzinfo=UTC)
NOW, NEXT = facts.FORM, facts.FORM + 1
READS = f"this software reads form {NOW}"
NEWER = f"is written in form {NEXT}, {READS}; .* the two, this one, then"
OLDER = f"is written in form 0, {READS}; .* the one that made the rel"
NONE = f"does not tell the form it is written in, {READS}; .* ask for"
OTHERS = [
    (NEXT, NEWER),
    (0, OLDER),
    (..., NONE),  # left out
    *(
        (form, NONE)
        for form in (None, True, float(NOW), str(NOW), -1, 10**9, [NOW], {}, "\x1b[2J")
    ),
]


def in_form(manifest, form, **changes):
    told = {**manifest, **changes, "form": form}
    return {name: fact for name, fact in told.items() if fact is not ...}


def written(folder, manifest):
    """The manifest in place of the one that is there, signed as the other was."""
    (folder / "manifest.json").write_text(manifest_json(manifest))
    (folder / FILE).write_text(sign(manifest, KEY, WHEN).to_json())
    return folder


def line(error):
    said = str(error.value)
    assert said.isprintable()
    assert len(said) < 250
    return said


@pytest.fixture
def release(new_release, tmp_path):
    """A copy of the later release that the test may write."""
    return shutil.copytree(new_release.folder, tmp_path / "carried")


@pytest.mark.parametrize(("form", "said"), OTHERS)
def test_another_form_is_refused_on_every_way_that_leads_to_a_hospital(
    bundle, micro, releases, old_release, new_release, release, form, said
):
    told = in_form(new_release.manifest, form)
    pack(written(release, told), release.with_suffix(".vgrel"))
    ways = [
        lambda: verify(release),
        lambda: install_from(releases, bundle, release, TRUSTED),
        lambda: install_from(releases, bundle, release.with_suffix(".vgrel"), TRUSTED),
        lambda: install(releases, bundle, micro.plan, new_release.weights, told),
    ]
    for way in ways:
        with pytest.raises(ReleaseError, match=said) as caught:
            way()
        line(caught)
    with (
        opened(release.with_suffix(".vgrel")) as folder,
        pytest.raises(ReleaseError, match=said),
    ):
        verify(folder)
    assert unchanged(releases, old_release)


@pytest.mark.parametrize(("form", "said"), [(NEXT, NEWER), (0, OLDER), (..., NONE)])
def test_a_message_with_a_release_of_another_form_is_refused(
    hospital, micro, new_release, form, said
):
    class Order:
        plan, weights = micro.plan, new_release.weights

    told = in_form(new_release.manifest, form, files={"of/another.kind": "0" * 64})
    with pytest.raises(ReleaseError, match=said):
        hospital.install(Order(), json.dumps(told))
    assert not (hospital.folder / "releases").exists()


SPOILT = {
    "a fact that this version does not know": {"approved": True},
    "a fact that it misses": {"sites": ...},
    "a fact in other words": {"run": "demo\n# Approved"},
    "another plan": {"plan": "0" * 64},
    "files that this version does not know": {"files": {"of/another.kind": "0" * 64}},
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
def test_the_form_is_told_before_anything_that_follows_from_it(
    bundle, micro, releases, old_release, new_release, release, spoilt
):
    told = in_form(new_release.manifest, NEXT, **spoilt)
    written(release, told)
    (release / "plan.json").write_text("{}")
    (release / FILE).write_text("of another form too")
    for way in (
        lambda: verify(release),
        lambda: install_from(releases, bundle, release, TRUSTED),
        lambda: facts.check(told, micro.plan),
    ):
        with pytest.raises(ReleaseError, match=NEWER):
            way()
    written(release, {**told, "form": facts.FORM})
    with pytest.raises(ReleaseError) as caught:  # it is refused for that too
        verify(release)
    assert "reads form" not in str(caught.value)
    assert unchanged(releases, old_release)


def as_installed(releases, name, form):
    """The same release, as a version that writes another form had installed it."""
    folder = shutil.copytree(releases / name, releases / "0")
    told = in_form(json.loads((folder / "release/manifest.json").read_text()), form)
    written(folder / "release", told)
    (folder / "pipeline/release.json").write_text(manifest_json(told))
    describe(folder, digest(told), "2025-05-02T00:00:00.000Z", name)
    return folder.rename(releases / digest(told)[:16])


@pytest.mark.parametrize("form", [NEXT, 0, ...])
def test_an_installed_release_of_another_form_is_used_and_verified_as_before(
    bundle, releases, old_release, new_release, form
):
    folder = as_installed(releases, name_of(old_release), form)
    held = contents(folder)
    store = Store(releases, TRUSTED)
    assert store.use(folder.name).current
    assert store.verify(folder.name).run == "r-old"
    assert store.roll_back().name == name_of(old_release)
    store.use(folder.name)
    install_from(releases, bundle, new_release.folder, TRUSTED)
    assert store.roll_back().name == folder.name
    left = contents(folder)
    assert left.keys() == held.keys()
    assert [n for n, raw in held.items() if left[n] != raw] in ([], ["installed.json"])
    path = folder / "pipeline/hffm/config.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ReleaseError, match=r"hffm/config\.json has changed"):
        store.verify(folder.name)


def test_an_update_to_another_form_leaves_what_is_installed_as_it_is(
    bundle, releases, old_release, new_release, monkeypatch
):
    monkeypatch.setattr(facts, "FORM", NEXT)
    store = Store(releases, TRUSTED)
    assert store.verify(store.current().name).current
    with pytest.raises(
        ReleaseError, match=f"in form {NOW}, this software reads form {NEXT}"
    ):
        install_from(releases, bundle, new_release.folder, TRUSTED)
    assert unchanged(releases, old_release)
