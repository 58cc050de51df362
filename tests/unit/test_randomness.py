"""Randomness that nobody can guess: never the same, never torch's, rightly shaped."""

import copy
import math
import os
import pickle
from itertools import pairwise

import pytest
import torch
from scipy import stats

from vgmedgen.privacy import randomness
from vgmedgen.privacy.randomness import Secret

LIKELY = 1e-6  # a sound source falls below it once in a million runs


def test_torchs_own_generator_forgets_all_but_32_bits_of_its_seed():
    first, second = (
        torch.randn(100, generator=torch.Generator().manual_seed(seed))
        for seed in (5, 5 + 2**32)
    )
    assert torch.equal(first, second)


def test_no_two_draws_are_alike_and_torchs_seed_has_no_say():
    found = []
    for secret in (Secret(), Secret()):
        for _ in range(2):
            torch.manual_seed(0)
            found.append(secret.normal((50,), 1.0))
    for first, second in pairwise(found):
        assert not (first == second).any()


def test_drawing_leaves_torchs_own_generator_alone():
    before = torch.random.get_rng_state()
    secret = Secret()
    secret.normal((10,), 1.0)
    secret.joins(10, 0.5)
    secret.generator()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_fork_draws_other_numbers_than_its_parent():
    secret = Secret()
    secret.uniform(3)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, secret.uniform(8).numpy().tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = torch.frombuffer(bytearray(os.read(reader, 64)), dtype=torch.float64)
    os.close(reader)
    os.close(writer)
    assert len(theirs) == 8
    assert not torch.isin(theirs, secret.uniform(8)).any()


def test_nothing_can_be_read_out_of_a_secret_or_put_into_it():
    secret = Secret()
    secret.uniform(5)
    assert not hasattr(secret, "__dict__")
    assert pickle.dumps(secret) == pickle.dumps(Secret())
    assert repr(secret).startswith("<vgmedgen.privacy.randomness.Secret object")
    with pytest.raises(TypeError):
        Secret(0)
    for same in (copy.deepcopy(secret), pickle.loads(pickle.dumps(secret))):  # noqa: S301
        assert not torch.isin(same.uniform(8), secret.uniform(8)).any()


def test_uniform_draws_are_uniform_and_never_touch_the_ends():
    drawn = Secret().uniform(100_000)
    assert drawn.dtype == torch.float64
    assert drawn.min() > 0
    assert drawn.max() < 1
    assert stats.kstest(drawn.numpy(), "uniform").pvalue > LIKELY
    assert len(drawn.unique()) == len(drawn)


@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_even_the_outermost_draws_are_inside(byte: int, monkeypatch):
    class Stuck:
        def __init__(self, *_, **__):
            pass

        def encryptor(self):
            return self

        def update_into(self, _, stream: bytearray) -> None:
            stream[:] = bytes([byte]) * len(stream)

    monkeypatch.setattr(randomness, "Cipher", Stuck)
    secret = Secret()
    assert 0 < secret.uniform(1).item() < 1
    assert secret.normal((4,), 1.0).isfinite().all()


@pytest.mark.parametrize("std", [0.3, 7.0])
def test_normal_draws_are_normal(std: float):
    drawn = Secret().normal((300, 333), std)
    assert drawn.shape == (300, 333)
    assert drawn.dtype == torch.float32
    assert stats.kstest(drawn.flatten().numpy() / std, "norm").pvalue > LIKELY
    assert drawn.std().item() == pytest.approx(std, rel=0.02)
    assert stats.kurtosis(drawn.flatten().numpy()) == pytest.approx(0, abs=0.1)


def test_normal_draws_do_not_depend_on_each_other_within_or_across_parts():
    drawn = Secret().normal((200_001,), 1.0)
    for gap in (1, 2, 2**13, 2**14):  # neighbours, halves of a part, parts
        linear = torch.corrcoef(torch.stack((drawn[gap:], drawn[:-gap])))[0, 1]
        size = torch.corrcoef(torch.stack((drawn[gap:], drawn[:-gap])).square())[0, 1]
        assert abs(linear) < 6 / math.sqrt(len(drawn))
        assert abs(size) < 6 / math.sqrt(len(drawn))


def test_shapes_may_be_scalar_or_empty_and_no_noise_is_exactly_none():
    secret = Secret()
    assert secret.normal((), 1.0).shape == ()
    assert secret.normal((0, 3), 1.0).shape == (0, 3)
    assert torch.equal(secret.normal((2, 3), 0.0), torch.zeros(2, 3))


@pytest.mark.parametrize("std", [-1.0, math.nan, math.inf])
def test_a_deviation_that_is_none_is_refused(std: float):
    with pytest.raises(ValueError, match="standard deviation"):
        Secret().normal((2,), std)


def test_each_unit_joins_on_its_own_with_the_rate():
    secret, units, rate, steps = Secret(), 50, 0.3, 4000
    joined = torch.zeros(steps, units)
    for step in range(steps):
        chosen = secret.joins(units, rate)
        assert chosen == sorted(set(chosen))
        joined[step, chosen] = 1
    spread = math.sqrt(rate * (1 - rate) / steps)
    assert (joined.mean(0) - rate).abs().max() < 6 * spread
    together = torch.corrcoef(joined.T) - torch.eye(units)
    assert together.abs().max() < 6 / math.sqrt(steps)
    # the number that joins varies as it must; a fixed batch would not
    assert joined.sum(1).var().item() == pytest.approx(
        units * rate * (1 - rate), rel=0.2
    )


def test_a_rate_of_one_takes_all_and_none_may_join():
    secret = Secret()
    assert secret.joins(7, 1.0) == list(range(7))
    assert secret.joins(7, 0.0) == []
    assert secret.joins(0, 0.5) == []
    assert any(secret.joins(3, 0.1) == [] for _ in range(100))


def test_generators_start_from_the_operating_system():
    seeds = {Secret().generator().initial_seed() for _ in range(20)}
    assert len(seeds) == 20
