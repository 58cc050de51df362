"""Whose release a site uses, and how old: also once a key is dropped or a file is lost."""

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from tests.releases import KEY, TRUSTED, contents, name_of, scratch
from vgmedgen.errors import PolicyError, ReleaseError
from vgmedgen.release import card as cards
from vgmedgen.release.install import install, install_from
from vgmedgen.release.signature import FILE, sign
from vgmedgen.release.store import Store
from vgmedgen.release.verify import verify
from vgmedgen.trust.signing import SigningKey

OTHER = SigningKey.make()


# whose key it is


def test_a_key_that_was_dropped_verifies_uses_and_rolls_back_nothing(store, by_year):
    dropped = Store(store.releases, [OTHER.public])
    old = name_of(by_year[2023])
    for refused in (
        lambda: dropped.verify(old),
        lambda: dropped.use(old),
        dropped.roll_back,
    ):
        with pytest.raises(PolicyError, match="is no longer trusted"):
            refused()
    assert store.current().run == "r-2025"
    assert Store(store.releases, [OTHER.public, *TRUSTED]).use(old).run == "r-2023"


def test_a_site_that_trusts_nobody_any_more_uses_no_signed_release(store, by_year):
    nobody = Store(store.releases, [])
    for refused in (lambda: nobody.use(name_of(by_year[2023])), nobody.roll_back):
        with pytest.raises(PolicyError, match="does not list the key"):
            refused()
    assert store.current().run == "r-2025"


def test_an_unsigned_release_is_used_only_where_nobody_is_trusted(
    bundle, micro, by_year, tmp_path
):
    one = by_year[2023]
    install(tmp_path / "r", bundle, micro.plan, one.weights, one.manifest)
    assert Store(tmp_path / "r", []).use(name_of(one)).run == "r-2023"
    with pytest.raises(PolicyError, match="nobody has signed it"):
        Store(tmp_path / "r", TRUSTED).use(name_of(one))


def test_a_signature_that_is_taken_away_is_missed(store, by_year):
    (store.releases / name_of(by_year[2025]) / "release" / FILE).unlink()
    for trusted in ([], None):
        with pytest.raises(ReleaseError, match=r"release/signature\.json has changed"):
            Store(store.releases, trusted).verify(name_of(by_year[2025]))


@pytest.mark.parametrize("first", [None, OTHER])
@pytest.mark.parametrize("way", ["carried", "in run"])
def test_the_signature_of_a_release_that_is_there_already_is_kept(
    bundle, micro, by_year, tmp_path, first, way
):
    one, releases = by_year[2025], tmp_path / "releases"
    before = (
        sign(one.manifest, first, datetime(2024, 1, 1, tzinfo=UTC)) if first else None
    )
    install(releases, bundle, micro.plan, one.weights, one.manifest, before)
    if way == "carried":
        install_from(releases, bundle, one.folder, TRUSTED)
    else:
        rest = one.weights, one.manifest, one.signature
        install(releases, bundle, micro.plan, *rest)
    kept = Store(releases, TRUSTED).verify(name_of(one))
    assert (kept.coordinator, kept.created) == (KEY.public, one.signature.created)
    assert contents(kept.release) == contents(one.folder)
    with pytest.raises(ReleaseError, match="--allow-downgrade"):
        install_from(releases, bundle, by_year[2023].folder, TRUSTED)
    (kept.release / FILE).unlink()
    with pytest.raises(ReleaseError, match=r"signature\.json has changed"):
        Store(releases).verify(name_of(one))
    assert not scratch(releases)


def test_an_older_signature_of_the_same_key_does_not_turn_back_the_date(
    bundle, by_year, store, carried
):
    early = sign(by_year[2025].manifest, KEY, datetime(2022, 1, 1, tzinfo=UTC))
    (carried / FILE).write_text(early.to_json())
    install_from(store.releases, bundle, carried, TRUSTED)
    assert store.current().created == by_year[2025].signature.created


@pytest.mark.parametrize("ahead", [timedelta(days=2), timedelta(days=3650)])
def test_a_signature_of_days_to_come_is_refused(
    bundle, micro, by_year, store, carried, ahead
):
    one = by_year[2025]
    late = sign(one.manifest, KEY, datetime.now(UTC) + ahead)
    (carried / FILE).write_text(late.to_json())
    with pytest.raises(PolicyError, match="a day ahead is the limit"):
        install_from(store.releases, bundle, carried, TRUSTED)
    with pytest.raises(PolicyError, match="a day ahead is the limit"):
        install(store.releases, bundle, micro.plan, one.weights, one.manifest, late)
    assert store.current().created == one.signature.created
    soon = sign(one.manifest, KEY, datetime.now(UTC) + timedelta(hours=20))
    (carried / FILE).write_text(soon.to_json())
    install_from(store.releases, bundle, carried, TRUSTED)


# back to an older one


def damage_facts(releases, name):
    (releases / name / "installed.json").write_text("{}")


def damage_deeply(releases, name):
    (releases / name / "installed.json").write_text("[" * 100_000)


def empty_pointer(releases, _):
    (releases / "current").write_text("")


def no_pointer(releases, _):
    (releases / "current").unlink()


@pytest.mark.parametrize(
    "spoil", [damage_facts, damage_deeply, empty_pointer, no_pointer]
)
@pytest.mark.parametrize("year", [2023, 2024])
def test_a_release_in_use_that_is_damaged_is_still_not_fallen_behind(
    bundle, micro, by_year, store, spoil, year
):
    spoil(store.releases, name_of(by_year[2025]))
    pointed, one = store.current_name(), by_year[year]
    with pytest.raises(ReleaseError, match="--allow-downgrade"):
        install_from(store.releases, bundle, one.folder, TRUSTED)
    rest = one.weights, one.manifest, one.signature
    install(store.releases, bundle, micro.plan, *rest)
    assert store.current_name() == pointed
    install_from(store.releases, bundle, one.folder, TRUSTED, allow_downgrade=True)
    assert store.current().run == f"r-{year}"


def test_where_nothing_tells_the_age_of_what_was_in_use_a_person_decides(
    bundle, by_year, store
):
    shutil.rmtree(store.releases / name_of(by_year[2025]))
    with pytest.raises(ReleaseError, match="does not tell when it was signed"):
        install_from(store.releases, bundle, by_year[2023].folder, TRUSTED)
    install_from(store.releases, bundle, by_year[2025].folder, TRUSTED)  # mends it
    assert store.verify(store.current().name).run == "r-2025"


def test_a_release_that_is_made_anew_goes_back_to_what_was_before_it(
    bundle, by_year, store
):
    path = store.current().pipeline / "transformer" / "config.json"
    path.write_bytes(path.read_bytes() + b" ")
    install_from(store.releases, bundle, by_year[2025].folder, TRUSTED)
    assert store.before().run == "r-2023"
    assert store.roll_back().run == "r-2023"


# what an update must not break


def test_an_installed_release_outlives_another_wording_of_the_card(
    store, by_year, monkeypatch
):
    monkeypatch.setattr(cards, "TEXT", cards.TEXT.replace("Limits", "Bounds"))
    assert store.verify(name_of(by_year[2023])).run == "r-2023"
    assert store.use(name_of(by_year[2023])).current
    with pytest.raises(ReleaseError, match="publish the release with this version"):
        verify(by_year[2023].folder)
    path = store.current().release / "README.md"
    path.write_text(path.read_text() + "\nApproved for diagnosis.\n")
    with pytest.raises(ReleaseError, match=r"README\.md has changed"):
        store.verify(name_of(by_year[2023]))
