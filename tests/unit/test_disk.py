"""Whether a coordinator can write, found out on file systems that are full."""

import errno
import os

import pytest

from server import disk
from server.disk import Disk


def test_a_disk_that_can_be_written_is_well_and_nothing_is_left_on_it(tmp_path):
    assert Disk(tmp_path)() == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "the disk cannot be written"),
    ],
)
def test_a_disk_that_cannot_be_written_is_told_without_a_path(
    tmp_path, monkeypatch, number, told
):
    def full(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("vgmedgen.files.os.fsync", full)
    health = Disk(tmp_path, every_s=0.0)
    assert health() == told
    monkeypatch.undo()
    assert health() == ""


def test_whoever_asks_often_does_not_write_often(tmp_path, monkeypatch):
    tries = []
    monkeypatch.setattr(disk, "write_bytes", lambda *words: tries.append(words))
    health = Disk(tmp_path)
    for _ in range(100):
        health()
    assert len(tries) == 1
