"""Which signed times are taken: of a node whose clock is off, and of an eavesdropper."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from server.flower import clocks
from server.flower.clocks import NOBODY, OFF, USED, Skews


class Now(datetime):
    """A clock that is set by hand."""

    at = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)

    @classmethod
    def now(cls, tz=None):
        return cls.at


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    Now.at = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
    monkeypatch.setattr(clocks, "datetime", Now)
    monkeypatch.setattr(clocks.time, "time", lambda: Now.now().timestamp())
    return Now


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def start(tmp_path, key):
    """Starts a server on the same state."""
    name = public_key_to_bytes(key.public_key()).hex()
    return lambda: Skews(
        worth_s=30, registered=lambda: {name}, ahead=tmp_path / "ahead.json"
    )


def signed(key, ahead=0.0):
    """What a node sends whose clock is `ahead` seconds ahead."""
    stamp = (Now.at + timedelta(seconds=ahead)).isoformat().encode()
    public = public_key_to_bytes(key.public_key())
    return {
        b"flwr-public-key": b64encode(public),
        b"flwr-timestamp": stamp,
        b"flwr-signature": b64encode(sign_message(key, stamp)),
    }


def later(seconds):
    Now.at += timedelta(seconds=seconds)


@pytest.mark.parametrize("ahead", [-299, -290, -6, 0, 4, 6, 120, 299])
def test_a_clock_within_300_s_is_let_in_either_way(start, key, ahead):
    skews = start()
    for _ in range(3):
        assert skews(signed(key, ahead)) == 0
        later(3)
    assert list(skews.found.values()) == ([ahead] if abs(ahead) >= 30 else [])


@pytest.mark.parametrize("ahead", [-3600, -301, 301, 3600])
def test_a_clock_that_is_further_off_is_told_that_it_is_the_clock(start, key, ahead):
    skews = start()
    assert skews(signed(key, ahead)) == OFF
    assert list(skews.found.values()) == [ahead]
    assert NOBODY != OFF


@pytest.mark.parametrize("ahead", [-200, 0, 3, 200])
def test_a_signed_time_that_was_seen_is_not_taken_again(start, key, ahead):
    skews = start()
    seen = signed(key, ahead)
    assert skews(seen) == 0
    for wait in (0, 0.5, 60, 100, 300, 600, 10_000):
        later(wait)
        assert skews(seen) in {USED, OFF}
        later(1)
        assert skews(signed(key, ahead)) == 0  # while the node itself goes on


@pytest.mark.parametrize("ahead", [6, 60, 200, 299])
def test_what_was_signed_ahead_of_time_is_not_taken_by_the_next_server(
    start, key, ahead
):
    skews = start()
    seen = []
    for _ in range(20):
        seen.append(signed(key, ahead))
        assert skews(seen[-1]) == 0
        later(3)
    again = start()
    taken = 0
    for _ in range(200):
        # Flower would have taken what is at most 5 s ahead; nothing more is taken here
        for one in seen:
            at = datetime.fromisoformat(one[b"flwr-timestamp"].decode())
            if (at - Now.at).total_seconds() > 5:
                assert again(one) == USED
        taken += again(signed(key, ahead)) == 0
        later(3)
    assert taken >= 200 - clocks.GRANT_S / 3 - 2  # half a minute, and it is in again


def test_a_file_of_times_that_is_damaged_lets_nobody_in_early(start, key, tmp_path):
    assert start()(signed(key, 200)) == 0
    for content in ("{", "[]", '{"x": "y"}', "\xff"):
        (tmp_path / "ahead.json").write_text(content, encoding="latin-1")
        skews = start()
        assert skews(signed(key, 200)) == USED
        assert skews(signed(key, 2)) == 0  # as Flower itself
        later(101)
        assert skews(signed(key, 200)) == 0
        later(500)


def test_a_time_that_cannot_be_written_down_is_not_taken(start, key, tmp_path):
    (tmp_path / "ahead.json").mkdir()
    skews = start()
    assert skews(signed(key, 6)) == USED
    assert skews(signed(key, 4)) == 0


def test_nobody_fills_the_memory_with_times(start, key, monkeypatch):
    monkeypatch.setattr(clocks, "MOST_STAMPS", 3)
    skews = start()
    told = []
    for _ in range(5):
        told.append(skews(signed(key)))
        later(1)
    assert told == [0, 0, 0, USED, USED]
    later(clocks.MOST_SKEW_S + 1)
    assert skews(signed(key)) == 0
