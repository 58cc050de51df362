"""Who signed a release: one key, one release, one moment, in one form."""

import dataclasses
from datetime import UTC, datetime, timedelta, timezone

import pytest

from vgmedgen.errors import PolicyError, ReleaseError, TrustError
from vgmedgen.release.signature import LONGEST, Signature, check, sign
from vgmedgen.trust import warrant
from vgmedgen.trust.signing import SigningKey

MANIFEST = {"run": "r-1", "files": {"a": "b"}}
KEY, OTHER = SigningKey.make(), SigningKey.make()
WHEN = datetime(2026, 1, 31, 17, 5, 9, 123456, tzinfo=UTC)


@pytest.fixture
def signature():
    return sign(MANIFEST, KEY, WHEN)


def test_a_signature_by_a_trusted_key_is_accepted(signature):
    check(signature, MANIFEST, [OTHER.public, KEY.public])
    assert signature.created == "2026-01-31T17:05:09Z"
    assert signature.coordinator == KEY.public


def test_a_moment_is_told_in_utc(signature):
    east = WHEN.astimezone(timezone(timedelta(hours=9)))
    assert sign(MANIFEST, KEY, east) == signature
    with pytest.raises(ValueError, match="time zone"):
        sign(MANIFEST, KEY, datetime(2026, 1, 31))  # noqa: DTZ001


def test_nobody_is_trusted_who_is_not_listed(signature):
    with pytest.raises(PolicyError, match=r"policy\.coordinators in site\.yaml lists"):
        check(signature, MANIFEST, [])
    with pytest.raises(PolicyError, match=f"{KEY.public[:16]}, which"):
        check(signature, MANIFEST, [OTHER.public])
    with pytest.raises(PolicyError, match="not signed"):
        check(None, MANIFEST, [KEY.public])


def test_a_signature_of_another_release_is_refused(signature):
    with pytest.raises(ReleaseError, match="is that of release"):
        check(signature, {**MANIFEST, "run": "r-2"}, [KEY.public])


@pytest.mark.parametrize("part", ["created", "coordinator", "signature"])
def test_every_part_of_a_signature_is_signed(signature, part):
    other = sign(MANIFEST, OTHER, WHEN + timedelta(days=1))
    changed = dataclasses.replace(signature, **{part: getattr(other, part)})
    with pytest.raises(TrustError, match="did not sign this release"):
        check(changed, MANIFEST, [KEY.public, OTHER.public])


def test_a_signature_under_a_message_is_none_under_a_release(signature):
    said = f"{signature.release}\n{signature.created}"
    borrowed = dataclasses.replace(signature, signature=warrant.sign(KEY, said))
    with pytest.raises(TrustError):
        check(borrowed, MANIFEST, [KEY.public])


def test_json_is_one_short_line_that_reads_back_equal(signature):
    text = signature.to_json()
    assert Signature.from_json(text) == signature
    assert len(text) <= LONGEST
    assert text.isascii()
    assert "\n" not in text


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: "",
        lambda t: "null",
        lambda t: "[" * 500,
        lambda t: t + " ",
        lambda t: t + "\n",
        lambda t: t[:-1],
        lambda t: t.replace(": ", ":"),
        lambda t: t.replace('"created"', '"Created"'),
        lambda t: t[:-1] + ', "note": "x"}',
        lambda t: t[:-1] + ', "created": "2026-01-31T17:05:09Z"}',
        lambda t: t.replace("2026-01-31", "2026-02-31"),
        lambda t: t.replace("2026-01-31T", "2026-01-31 "),
        lambda t: t.replace("17:05:09Z", "17:05:09+00:00"),
        lambda t: t.replace("2026", "\u0662026"),
        lambda t: t.replace(KEY.public, KEY.public.upper()),
        lambda t: t.replace(KEY.public, KEY.public[:-1]),
        lambda t: t.replace(f'"{KEY.public}"', "3"),
        lambda t: t + " " * LONGEST,
    ],
)
def test_what_is_only_nearly_a_signature_is_refused(signature, spoil):
    text = spoil(signature.to_json())
    assert text != signature.to_json()
    with pytest.raises(ReleaseError, match="signature of the release is damaged"):
        Signature.from_json(text)
