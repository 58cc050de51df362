"""A studio that stays open while the site's policy changes, or its release goes."""

import dataclasses
import shutil

import pytest
from omegaconf import OmegaConf

from tests.gated import make_site
from tests.releases import KEY, TRUSTED, make
from vgmedgen.errors import ConfigError, PolicyError, ReleaseError
from vgmedgen.release import installed
from vgmedgen.release.install import install_from
from vgmedgen.release.signature import sign
from vgmedgen.release.store import Store
from vgmedgen.site.folder import Site
from vgmedgen.studio import work
from vgmedgen.studio.work import Studio, Wish
from vgmedgen.synthesis.job import model_of
from vgmedgen.trust.signing import SigningKey

OTHER = SigningKey.make()
BOTH = [KEY.public, OTHER.public]
WISH = Wish(prompt="image; small lesion", label="mel", count=1, steps=1)
HOW = {"layout": "plain", "masks": False, "dicom": False}
POLICY = {"coordinators": BOTH, "ungated": True}


@pytest.fixture(scope="module")
def place(bundle, micro, tmp_path_factory):
    """A site with a signed release and too few images for a gate; read only."""
    folder = tmp_path_factory.mktemp("studio")
    site = make_site(folder / "site", bundle, phantoms=12, policy=POLICY)
    made = make(folder / "release", bundle, micro.plan)
    install_from(site.folder / "releases", bundle, made.folder, TRUSTED)
    return site.folder


@pytest.fixture
def studio(place, tmp_path):
    """A studio that is open at a copy of it."""
    site = Site(shutil.copytree(place, tmp_path / "site"))
    return Studio(site, model_of(site))


@pytest.fixture
def series(studio):
    (found,) = studio.draw(WISH)
    return found


def say(studio, **policy):
    """Have site.yaml say something else, as somebody with an editor does."""
    path = studio.site.folder / "site.yaml"
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), {"policy": policy}), path)


def refused(studio, series, kind, match):
    """Neither drawn nor exported, each in one line, and nothing is left of it."""
    for attempt in (
        lambda: list(studio.draw(WISH)),
        lambda: studio.export(series, **HOW),
    ):
        with pytest.raises(kind, match=match) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert not (studio.site.folder / work.EXPORTS).exists()


def test_a_key_that_is_dropped_ends_drawing_and_exporting_at_once(
    studio, series, monkeypatch
):
    say(studio, coordinators=[OTHER.public])
    with monkeypatch.context() as patch:
        patch.setattr(work, "Drawer", lambda *_, **__: pytest.fail("it was drawn"))
        said = f"is no longer trusted: policy.coordinators .* {KEY.public[:16]}; use an"
        refused(studio, series, PolicyError, said)
    say(studio, coordinators=BOTH)
    (again,) = studio.draw(WISH)
    assert (again.pictures[0].drawn.pixels == series.pictures[0].drawn.pixels).all()
    assert studio.export(series, **HOW).images == 1


def test_a_site_that_lists_nobody_any_more_draws_nothing(studio, series):
    say(studio, coordinators=[])
    refused(studio, series, ConfigError, "lists no coordinator any more")


def test_a_release_that_nobody_signed_is_not_drawn_from_once_a_key_is_listed(
    studio, series
):
    # as a simulation leaves it, whose site then joins a coordinator
    (studio.model.release / "signature.json").unlink()
    refused(studio, series, PolicyError, "no longer trusted: nobody has signed it")


def test_a_release_that_another_key_has_signed_since_is_that_keys(studio):
    one = studio.model
    signed = sign(
        installed.manifest_of(one.release),
        OTHER,
        work.datetime(2026, 6, 1).astimezone(),
    )
    store = Store(studio.site.folder / "releases")
    say(studio, coordinators=[OTHER.public])
    with store.alone():
        store.resign(one.name, signed, [OTHER.public])
    assert list(studio.draw(WISH))


def test_a_release_that_was_removed_is_not_drawn_from(studio, series):
    shutil.rmtree(studio.model.folder)
    refused(studio, series, ReleaseError, "is not in .*; install it again")


def test_a_site_file_that_cannot_be_read_ends_drawing(studio, series):
    path = studio.site.folder / "site.yaml"
    held = path.read_text()
    path.write_text(held.replace("policy:", "polixy:"))
    refused(studio, series, ConfigError, "polixy")
    path.write_text(held)
    assert list(studio.draw(WISH))


def test_no_byte_of_the_release_is_read_again_to_draw(studio, monkeypatch):
    def fails(*_):
        pytest.fail("a file of the release was read")

    for module, name in ((installed, "files_of"), (installed, "verify_bytes")):
        monkeypatch.setattr(module, name, fails)
    assert list(studio.draw(WISH))


def test_an_export_follows_the_policy_of_the_moment(studio, series):
    assert studio.gate is None
    say(studio, ungated=False)
    assert not studio.may_export
    with pytest.raises(PolicyError, match="nothing compared these images"):
        studio.export(series, **HOW)
    assert not (studio.site.folder / work.EXPORTS).exists()
    assert list(studio.draw(dataclasses.replace(WISH, seed=3)))  # to look at
    say(studio, ungated=True)
    assert not studio.export(series, **HOW).cleared


def test_a_release_that_is_not_trusted_opens_no_studio(studio):
    say(studio, coordinators=[OTHER.public])
    with pytest.raises(PolicyError, match="is no longer trusted"):
        Studio(Site(studio.site.folder), studio.model)
