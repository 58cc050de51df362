"""Real processes on lines that break: a node outlives them, or ends so that it is seen."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from client.heartbeats import heard
from server.gates import FLEET
from tests.federation.carried import Carried
from tests.federation.processes import wait
from tests.forwarder import Forwarder, Meddler
from vgmedgen.trust.nodekeys import MOST_SKEW_S

HEARTBEAT = "/v1/fleet/send-node-heartbeat"
PULL = "/v1/fleet/pull-messages"

pytestmark = pytest.mark.simulation


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A SuperLink that runs, and a node that is not yet started."""
    made = Carried(tmp_path_factory.mktemp("lines"))
    try:
        made.start_link()
        yield made
    finally:
        made.stop()


@pytest.fixture
def through(place):
    """Starts the node through a proxy; both end with the test."""
    proxies = []

    def start(proxy, ahead=0.0):
        proxies.append(proxy)
        place.dial(f"localhost:{proxy.port}")
        before = place.confirmed
        place.node.start(ahead)
        if abs(ahead) < MOST_SKEW_S:
            wait(lambda: place.confirmed > before, what="the first heartbeat")
        return proxy

    yield start
    place.node.kill(15)
    for proxy in proxies:
        proxy.close()


def test_the_paths_that_are_meddled_with_are_flowers():
    assert {HEARTBEAT, PULL} <= FLEET


def test_a_node_behind_a_forwarder_is_back_when_the_server_was_restarted(
    place, through
):
    forwarder = through(Forwarder(place.port))
    place.link.kill()
    forwarder.drop()
    before = forwarder.vain
    wait(lambda: forwarder.vain >= before + 2, what="handshakes that end early")
    assert place.node.running
    place.start_link()
    place.wait_confirmed()
    assert "closed the connection during the TLS handshake" in place.node.text


def test_a_node_outlives_what_a_full_disk_answers_to_its_calls(place, through):
    meddler = Meddler(place.home, place.port)
    meddler.instead = {HEARTBEAT: [500, 2], PULL: [500, 2]}
    through(meddler)
    wait(lambda: meddler.asked.get(PULL, 0) >= 4, what="polls")
    assert meddler.instead == {HEARTBEAT: [500, 0], PULL: [500, 0]}
    assert place.node.running
    assert "answers with HTTP status 500" in place.node.text


def test_a_node_that_cannot_go_on_ends_its_process(place, through):
    meddler = through(Meddler(place.home, place.port))
    meddler.instead = {PULL: [404, 1]}
    wait(lambda: not place.node.running, what="the end of the process")
    assert place.node.process.returncode == 1


@pytest.mark.parametrize("ahead", [6, pytest.param(280, marks=pytest.mark.slow)])
def test_a_node_whose_clock_is_ahead_by_less_than_the_limit_works(
    place, through, ahead
):
    meddler = through(Meddler(place.home, place.port), ahead)
    wait(lambda: meddler.asked.get(PULL, 0) >= 3, what="polls")
    assert place.node.running
    if ahead > 30:
        line = f"the clock of hospital-a is {ahead} s ahead of the coordinator's; it"
        wait(lambda: line in place.link.text, what="a word in the server's log")


@pytest.mark.parametrize(
    ("ahead", "told"), [(330, "330 s ahead of"), (-330, "330 s behind")]
)
def test_a_node_whose_clock_is_further_off_says_that_it_is_the_clock(
    place, through, ahead, told
):
    meddler = through(Meddler(place.home, place.port), ahead)
    word = "clock of this machine is more than 300 s"
    before = place.node.text.count(word)
    wait(lambda: place.node.text.count(word) > before, what="a word in the node's log")
    assert place.node.running  # it goes on trying
    assert not meddler.asked.get(PULL)
    line = f"the clock of hospital-a is {told} the coordinator's; its requests are"
    wait(lambda: line in place.link.text, what="a word in the server's log")


KEEP = """
import sys, threading
from pathlib import Path
from client import supervisor
from client.heartbeats import Heartbeats
from vgmedgen.process import logs
logs.keeper(as_json=False)
supervisor.Heartbeats = lambda place: Heartbeats(place, after_s=30.0)
supervisor.keep(Path(sys.argv[1]), threading.Event())
"""


@pytest.mark.slow
def test_a_supernode_that_hangs_is_started_again_for_want_of_heartbeats(place):
    """Its process is there and does nothing; its key counts as online for a minute."""
    place.dial(f"localhost:{place.port}")
    node = place.site / "node"
    with (place.site / "keeper.log").open("w") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-P", "-c", KEEP, place.site],
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def supernode():
        children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_bytes()
        for kid in map(int, children.split()):
            with suppress(OSError):
                words = Path(f"/proc/{kid}/cmdline").read_bytes().split(b"\0")
                if b"supernode" in words:
                    return kid
        return None

    try:
        wait(lambda: heard(node) and heard(node).at, what="the first heartbeat")
        hangs = supernode()
        os.kill(hangs, signal.SIGSTOP)
        wait(lambda: supernode() not in {hangs, None}, what="another SuperNode")
        before = heard(node).unheard_s
        assert before > 30
        wait(lambda: heard(node).unheard_s < before, what="a heartbeat of its own")
        told = (place.site / "keeper.log").read_text()
        assert "has confirmed no heartbeat of it for" in told
    finally:
        keeper.kill()  # and its children follow
        keeper.wait()
