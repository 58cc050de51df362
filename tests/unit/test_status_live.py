"""The live view of `status` in a real terminal."""

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from server.live import watch
from tests.unit import status_example as example
from vgmedgen.errors import ConfigError


def test_watching_needs_a_terminal():
    with pytest.raises(ConfigError, match="needs a terminal"):
        watch(example.many)


WATCH = """
import fcntl, signal, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches this process
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job ignores it
from server.live import watch
from tests.unit import status_example
watch(status_example.many, every_s=0.2)
print("the view has ended", flush=True)
"""


def drain(number, until, wait_s=300.0):
    told, end = b"", time.monotonic() + wait_s
    while until not in told and time.monotonic() < end:
        if select.select([number], [], [], 0.1)[0]:
            try:
                told += os.read(number, 65536)
            except OSError:
                break
    return told


@pytest.mark.parametrize("leave", [b"q", b"\x03"])
def test_the_live_view_scrolls_and_leaves_the_terminal_as_it_was(leave):
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", WATCH],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "20"},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        assert b"more lines below" in drain(ours, b"scroll")
        os.write(ours, b"jjjj" * 20)
        for _ in range(8):
            os.write(ours, b"j")
            drain(ours, b"scroll")
        os.write(ours, leave)
        assert b"the view has ended" in drain(ours, b"the view has ended")
        assert child.wait(20) == 0, child.stderr.read().decode()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        child.stderr.close()
        os.close(ours)
