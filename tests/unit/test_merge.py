"""Aggregation rules: what each promises."""

import numpy as np
import pytest
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean

from vgmedgen.config.run import MERGES
from vgmedgen.errors import ExchangeError
from vgmedgen.exchange import merge
from vgmedgen.exchange.merge import Update


def factors(rng, rank=4, width=10, height=6):
    return {
        "dit.to_q.A": rng.normal(size=(rank, width)).astype(np.float32),
        "dit.to_q.B": rng.normal(size=(height, rank)).astype(np.float32),
    }


def updates(count=3, seed=0, rank=4):
    rng = np.random.default_rng(seed)
    return [
        Update(site=f"s{i}", weight=float(i + 1), state=factors(rng, rank))
        for i in range(count)
    ]


def product(state):
    return state["dit.to_q.B"].astype(np.float64) @ state["dit.to_q.A"]


def mean_product(given):
    total = sum(u.weight for u in given)
    return sum(u.weight / total * product(u.state) for u in given)


def test_average_is_the_weighted_mean():
    given = updates()
    merged = merge.average(given)
    for name in merged:
        wanted = np.average(
            [u.state[name].astype(np.float64) for u in given],
            axis=0,
            weights=[u.weight for u in given],
        )
        np.testing.assert_allclose(merged[name], wanted, rtol=1e-6)
        assert merged[name].dtype == np.float32


@pytest.mark.parametrize("rule", MERGES)
@pytest.mark.parametrize("stage", ["align", "generate"])
def test_the_order_in_which_sites_answer_changes_no_bit(rule, stage):
    given = updates()
    previous = factors(np.random.default_rng(9))
    one = merge.combine(rule, stage, 1, previous, given)
    other = merge.combine(rule, stage, 1, previous, given[::-1])
    assert sorted(one) == sorted(previous)
    for name in one:
        assert one[name].tobytes() == other[name].tobytes()


@pytest.mark.parametrize("rule", MERGES)
def test_equal_updates_merge_to_the_same_product(rule):
    state = factors(np.random.default_rng(1))
    given = [Update(site=s, weight=w, state=state) for s, w in (("a", 1.0), ("b", 3.0))]
    merged = merge.combine(rule, "generate", 1, state, given)
    np.testing.assert_allclose(product(merged), product(state), atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "turn"), [("alternate", 1), ("alternate", 2), ("freeze_a", 5)]
)
def test_one_factor_a_round_makes_the_mean_of_products_exact(rule, turn):
    previous = factors(np.random.default_rng(5))
    trained = merge.trained_factor(rule, turn)
    given = [
        Update(
            site=u.site,
            weight=u.weight,
            state={
                n: (a if n.endswith(f".{trained}") else previous[n])
                for n, a in u.state.items()
            },
        )
        for u in updates()
    ]
    merged = merge.combine(rule, "generate", turn, previous, given)
    np.testing.assert_allclose(product(merged), mean_product(given), atol=1e-5)


def test_the_factor_that_did_not_train_need_not_be_sent():
    previous = factors(np.random.default_rng(5))
    given = [
        Update(site="a", weight=1.0, state={"dit.to_q.B": previous["dit.to_q.B"] + 1})
    ]
    merged = merge.combine("freeze_a", "generate", 1, previous, given)
    assert merged["dit.to_q.A"].tobytes() == previous["dit.to_q.A"].tobytes()
    np.testing.assert_allclose(merged["dit.to_q.B"], previous["dit.to_q.B"] + 1)


def test_b_trains_first_where_factors_take_turns():
    assert [merge.trained_factor("alternate", t) for t in (1, 2, 3)] == ["B", "A", "B"]
    assert merge.trained_factor("freeze_a", 2) == "B"
    assert merge.trained_factor("average", 2) is None


def test_svd_is_the_best_cut_of_the_mean_product():
    given = updates()
    merged = merge.svd(given, given[0].state)
    wanted = mean_product(given)
    u, s, v = np.linalg.svd(wanted, full_matrices=False)
    best = (u[:, :4] * s[:4]) @ v[:4]
    np.testing.assert_allclose(product(merged), best, atol=1e-5)


def test_svd_is_exact_where_the_rank_suffices():
    given = updates(count=2, rank=2)
    previous = factors(np.random.default_rng(3), rank=4)
    merged = merge.svd(given, previous)
    assert merged["dit.to_q.A"].shape == (4, 10)
    np.testing.assert_allclose(product(merged), mean_product(given), atol=1e-5)


def test_svd_mixes_ranks():
    given = [updates(1, seed=1, rank=1)[0], updates(2, seed=2, rank=3)[1]]
    previous = factors(np.random.default_rng(3), rank=6)
    merged = merge.svd(given, previous)
    np.testing.assert_allclose(product(merged), mean_product(given), atol=1e-5)


def test_svd_leaves_a_fresh_adapter_able_to_learn():
    rng = np.random.default_rng(0)
    fresh = factors(rng)
    fresh["dit.to_q.B"][:] = 0
    merged = merge.svd([Update(site="a", weight=1.0, state=fresh)], fresh)
    rows = np.linalg.norm(merged["dit.to_q.A"], axis=1)
    assert (rows > 0.5).all()
    assert not merged["dit.to_q.B"].any()


def test_svd_of_nothing_but_zeros_is_zero():
    zero = {n: np.zeros_like(a) for n, a in factors(np.random.default_rng(0)).items()}
    merged = merge.svd([Update(site="a", weight=1.0, state=zero)], zero)
    assert not product(merged).any()


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
def test_one_poisoner_in_five_does_not_move_a_robust_rule_far(rule):
    rng = np.random.default_rng(0)
    good = [
        Update(site=f"s{i}", weight=1.0, state={"m.w": rng.normal(size=50)})
        for i in range(4)
    ]
    bad = Update(site="bad", weight=1e6, state={"m.w": np.full(50, 1e4)})
    merged = merge.combine(rule, "align", 1, {}, [*good, bad])
    assert np.abs(merged["m.w"]).max() < 4


def test_robust_rules_agree_with_flower():
    given = updates(7)
    stack = np.stack([u.state["dit.to_q.A"] for u in given])
    np.testing.assert_allclose(
        merge.median(given)["dit.to_q.A"], np.median(stack, axis=0), rtol=1e-6
    )
    np.testing.assert_allclose(
        merge.trimmed_mean(given)["dit.to_q.A"], trim_mean(stack, 0.2), rtol=1e-5
    )


def test_a_trimmed_mean_of_three_is_their_median():
    given = updates(3)
    np.testing.assert_allclose(
        merge.trimmed_mean(given)["dit.to_q.A"], merge.median(given)["dit.to_q.A"]
    )


def test_nothing_to_merge_is_refused():
    with pytest.raises(ExchangeError, match="no update"):
        merge.average([])


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_weight_is_refused(weight):
    given = [*updates(2), Update(site="z", weight=weight, state=updates(1)[0].state)]
    with pytest.raises(ExchangeError, match="weight"):
        merge.average(given)


def test_updates_with_other_tensors_are_refused():
    given = [*updates(2), Update(site="z", weight=1.0, state={})]
    with pytest.raises(ExchangeError, match="z has other tensors"):
        merge.average(given)
