"""The bound on one site's update: whom it touches, by how much, and whom never."""

import numpy as np
import pytest

from vgmedgen.errors import ExchangeError
from vgmedgen.exchange import merge
from vgmedgen.exchange.bound import LARGEST_RATIO, LEAST_SHARE, TENSOR, bounded
from vgmedgen.exchange.merge import Update

MOST = 2.0
START = {
    "dit.to_q.A": np.ones((2, 8), np.float32),
    "dit.to_q.B": np.zeros((5, 2), np.float32),
}


def change(size, *, seed=0, names=tuple(START)):
    """A change of that Euclidean norm."""
    rng = np.random.default_rng(seed)
    drawn = {name: rng.normal(size=START[name].shape) for name in names}
    norm = np.sqrt(sum(np.square(a).sum() for a in drawn.values()))
    return {name: size / norm * array for name, array in drawn.items()}


def update(site, size, *, seed=None, names=tuple(START)):
    drawn = change(size, seed=ord(site[0]) if seed is None else seed, names=names)
    state = {n: (START[n] + a).astype(np.float32) for n, a in drawn.items()}
    return Update(site, 1.0, state)


def size(one):
    return np.sqrt(
        sum(np.square(a.astype(float) - START[n]).sum() for n, a in one.state.items())
    )


def by_site(found):
    return {one.site: size(one) for one in found.updates}


def test_an_honest_round_is_left_as_it_is_to_the_bit():
    given = [update("a", 1.0), update("b", 1.4), update("c", 0.8)]
    found = bounded(given, START, MOST)
    assert found.updates == given
    assert found.beyond == {}


@pytest.mark.parametrize("times", [10, 100])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_site_that_sends_too_much_is_held_to_twice_the_others(times, sign):
    given = [update("a", 1.0), update("b", 1.2), update("c", sign * times)]
    found = bounded(given, START, MOST)
    assert by_site(found) == pytest.approx({"a": 1.0, "b": 1.2, "c": 2.2}, rel=1e-4)
    assert found.beyond == {"c": pytest.approx(times / 1.1, rel=1e-2)}
    held, sent = found.updates[2], given[2]
    for name, start in START.items():  # shortened, and not turned
        whole, left = sent.state[name] - start, held.state[name] - start
        share = np.linalg.norm(left) / np.linalg.norm(whole)
        np.testing.assert_allclose(left, share * whole, atol=1e-4)


def test_what_is_held_may_be_huge_and_moves_the_mean_no_further():
    given = [update("a", 1.0), update("b", 1.0), update("c", 1e4)]
    found = bounded(given, START, MOST)
    merged = merge.combine("average", "generate", 1, START, found.updates)
    assert size(Update("m", 1.0, merged)) <= (1 + 1 + MOST) / 3 + 1e-3


def test_the_many_are_not_moved_by_the_few():
    honest = [update(name, 1.0) for name in "abc"]
    given = [*honest, update("x", 50.0), update("y", 60.0)]
    found = by_site(bounded(given, START, MOST))
    assert found == pytest.approx({"a": 1, "b": 1, "c": 1, "x": 2, "y": 2}, rel=1e-4)


def test_a_site_that_sends_nothing_new_does_not_hold_the_others_back():
    given = [update("a", 1.0), update("b", 0.9), update("c", 0.0)]
    found = bounded(given, START, MOST)
    assert found.beyond == {"a": pytest.approx(2.22, abs=0.01)}
    assert by_site(found)["a"] == pytest.approx(0.9, rel=1e-4)


def test_of_two_sites_the_larger_is_held_to_twice_the_smaller():
    found = bounded([update("a", 1.0), update("b", 100.0)], START, MOST)
    assert by_site(found) == pytest.approx({"a": 1.0, "b": 2.0}, rel=1e-4)
    assert found.beyond == {"b": 100.0}


def test_against_a_site_that_changed_nothing_no_change_counts():
    found = bounded([update("a", 0.0), update("b", 1.0)], START, MOST)
    assert by_site(found) == {"a": 0.0, "b": 0.0}
    assert found.beyond == {"b": LARGEST_RATIO}


def test_a_site_alone_and_a_bound_of_zero_hold_nobody():
    alone, many = [update("a", 100.0)], [update("a", 1.0), update("b", 100.0)]
    assert bounded(alone, START, MOST).updates == alone
    assert bounded(many, START, 0).updates == many
    assert not bounded(alone, START, MOST).beyond
    assert not bounded(many, START, 0).beyond


def test_only_the_factor_that_travelled_is_looked_at():
    only = ("dit.to_q.B",)
    given = [update("a", 1.0, names=only), update("b", 10.0, names=only)]
    found = bounded(given, START, MOST)
    assert by_site(found) == pytest.approx({"a": 1.0, "b": 2.0}, rel=1e-4)
    merged = merge.combine("alternate", "generate", 1, START, found.updates)
    np.testing.assert_array_equal(merged["dit.to_q.A"], START["dit.to_q.A"])


def test_a_change_of_an_honest_size_in_one_tensor_alone_is_held_too():
    """Else the whole of it would go where the model is most easily spoilt."""
    small = {name: change(1.0)[name] for name in START}
    small["dit.to_q.B"] = small["dit.to_q.B"] * 0.05
    honest = [
        Update(n, 1.0, {k: (START[k] + small[k]).astype(np.float32) for k in START})
        for n in "ab"
    ]
    own = np.sqrt(sum(np.square(a).sum() for a in small.values()))
    there = np.linalg.norm(small["dit.to_q.B"])
    aimed = small["dit.to_q.B"] * own / there  # as large as all of an honest change
    state = {**START, "dit.to_q.B": (START["dit.to_q.B"] + aimed).astype(np.float32)}
    found = bounded([*honest, Update("c", 1.0, state)], START, MOST)
    assert set(found.beyond) == {"c"}
    assert found.updates[:2] == honest
    assert size(found.updates[2]) == pytest.approx(TENSOR * MOST * there, rel=1e-3)


def test_a_tensor_that_nobody_else_changed_may_change_a_little():
    """Float16 swallows small changes: what one site shows of them is no attack."""

    def made(site, extra):
        drawn = change(1.0, names=("dit.to_q.A",))
        state = {"dit.to_q.A": (START["dit.to_q.A"] + drawn["dit.to_q.A"])}
        state["dit.to_q.B"] = START["dit.to_q.B"].copy()
        state["dit.to_q.B"][0, 0] = extra
        return Update(site, 1.0, {n: a.astype(np.float32) for n, a in state.items()})

    quiet = [made("a", 0), made("b", 0), made("c", 0.9 * LEAST_SHARE * TENSOR * MOST)]
    assert not bounded(quiet, START, MOST).beyond
    loud = bounded([*quiet[:2], made("c", 0.5)], START, MOST)
    assert set(loud.beyond) == {"c"}
    limit = LEAST_SHARE * TENSOR * MOST
    assert loud.updates[2].state["dit.to_q.B"][0, 0] == pytest.approx(limit, rel=1e-3)


def test_the_order_in_which_sites_answer_changes_no_bit():
    given = [update("a", 1.0), update("b", 1.2), update("c", 99.0)]
    one, other = bounded(given, START, MOST), bounded(given[::-1], START, MOST)
    assert one.beyond == other.beyond
    for left, right in zip(one.updates, other.updates, strict=True):
        assert left.site == right.site
        for name in START:
            assert left.state[name].tobytes() == right.state[name].tobytes()


def test_a_tensor_that_the_start_has_not_is_refused():
    stray = Update("a", 1.0, {"prior.weight": np.ones(2, np.float32)})
    with pytest.raises(ExchangeError, match=r"a has a tensor prior\.weight"):
        bounded([stray, update("b", 1.0)], START, MOST)
