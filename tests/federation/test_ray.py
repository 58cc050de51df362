"""The same apps with a process per site, offline and with capped resources."""

import os
import sys

import pytest

from server.registry import Registry
from simulations import engine
from tests.federation.toys import (
    client_of,
    config,
    expected,
    play,
    prepare,
    same,
    toys,
)


@pytest.mark.slow
@pytest.mark.simulation
def test_ray_gives_the_very_same_weights(tmp_path):
    import ray

    sites, before = toys(2), dict(os.environ)
    launch = prepare(tmp_path, sites, config(generate_rounds=1, wait_s=900.0))
    play(launch, client_of(sites), sites, engine_name="ray")
    assert not ray.is_initialized()
    assert dict(os.environ) == before
    assert same(Registry(tmp_path).weights(2), expected(launch, sites, 2))
    # The sites answered in processes of their own.
    assert not sites[0].orders
    assert engine.RAY_BACKEND in sys.modules
