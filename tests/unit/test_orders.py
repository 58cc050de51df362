"""What the coordinator sends, and signs."""

from dataclasses import replace

import pytest

from server.orders import Orders
from tests.federation.toys import prepare, toys, weights
from vgmedgen.errors import TrustError
from vgmedgen.exchange.wire import Kind, to_sign
from vgmedgen.trust import warrant
from vgmedgen.trust.signing import SigningKey

KEY = SigningKey.make()


@pytest.fixture
def launch(tmp_path):
    return prepare(tmp_path, toys(), key=KEY)


@pytest.mark.parametrize("kind", Kind)
def test_every_message_is_signed_whole(launch, kind):
    orders = Orders(launch, KEY)
    made = (
        orders.hello() if kind is Kind.HELLO else orders.order(kind, 1, weights(), "{}")
    )
    words = made["order"]
    assert words["coordinator"] == KEY.public
    said = to_sign(kind, made)
    warrant.check(KEY.public, words["signature"], said, [KEY.public])
    for other in set(Kind) - {kind}:
        elsewhere = to_sign(other, made)
        with pytest.raises(TrustError):
            warrant.check(KEY.public, words["signature"], elsewhere, [KEY.public])


def test_the_same_order_is_the_same_message(launch):
    one = Orders(launch, KEY).order(Kind.TRAIN, 2, weights())
    other = Orders(launch, KEY).order(Kind.TRAIN, 2, weights())
    assert dict(one["order"]) == dict(other["order"])


def test_a_run_goes_on_only_under_the_key_that_announced_it(launch):
    for key in (SigningKey.make(), None):
        with pytest.raises(TrustError, match="another signing key"):
            Orders(launch, key)
    with pytest.raises(TrustError):
        Orders(replace(launch, coordinator=""), KEY)


def test_a_simulation_signs_nothing(tmp_path):
    words = Orders(prepare(tmp_path, toys())).hello()["order"]
    assert (words["coordinator"], words["signature"]) == ("", "")
