"""A run that was stopped goes on, and ends where an uninterrupted one would have."""

import errno
import os

import pytest

from server.registry import Registry
from tests.federation.toys import (
    client_of,
    config,
    expected,
    play,
    prepare,
    same,
    toys,
)
from vgmedgen.errors import StateError

pytestmark = pytest.mark.simulation


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


def test_a_killed_run_goes_on_to_the_very_same_weights(tmp_path, monkeypatch):
    sites = toys()
    launch = prepare(tmp_path, sites, config(evaluate=False))
    write = Registry.write

    def die(self, record, kept):
        write(self, record, kept)
        if record.number == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "write", die)
        with pytest.raises(Killed):
            play(launch, client_of(sites), sites)
    registry = Registry(tmp_path)
    assert registry.last_complete() == 2
    again = toys()
    play(launch, client_of(again), again)
    assert [order.number for order in again[0].orders] == [3]
    for number in range(4):
        assert same(registry.weights(number), expected(launch, sites, number))
    # Once more: nothing is left to train, only the release goes out again.
    done = toys()
    play(launch, client_of(done), done)
    assert not done[0].orders
    assert len(done[0].releases) == 1


def test_a_full_disk_stops_the_run_and_leaves_earlier_rounds_intact(
    tmp_path, monkeypatch
):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    sites, write = toys(), Registry.write
    launch = prepare(tmp_path, sites, config(evaluate=False))
    with monkeypatch.context() as patch:

        def full(self, record, kept):
            if record.number == 2:
                patch.setattr(os, "fsync", no_space)
            write(self, record, kept)

        patch.setattr(Registry, "write", full)
        with pytest.raises(StateError, match=r"0002\.safetensors: No space left"):
            play(launch, client_of(sites), sites)
    registry = Registry(tmp_path)
    assert registry.last_complete() == 1
    assert same(registry.weights(1), expected(launch, sites, 1))
    play(launch, client_of(toys()), sites)
    assert same(registry.weights(3), expected(launch, sites, 3))


def test_a_folder_of_another_configuration_is_refused(tmp_path):
    sites = toys(2)
    short = config(generate_rounds=1, evaluate=False)
    play(prepare(tmp_path, sites, short), client_of(sites), sites)
    before = Registry(tmp_path).rounds()
    other = prepare(tmp_path, sites, config(generate_rounds=4))
    with pytest.raises(StateError, match="holds another run: its config"):
        play(other, client_of(sites), sites)
    assert Registry(tmp_path).rounds() == before
