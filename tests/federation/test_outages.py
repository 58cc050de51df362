"""A coordinator and three hospitals over TLS, on lines that break in mid-upload."""

import asyncio
import ssl
import threading
from contextlib import contextmanager, suppress

import pytest

from server.flower.doors import MOST_OF_KNOWN, MOST_STRANGERS
from server.gates import PUSH_OBJECT
from tests.federation.processes import Deployment, command, wait
from tests.forwarder import HOST, Meddler

SHORT = (
    "federation.align_rounds=1",
    "federation.evaluate=false",
    "federation.return_s=900",  # on a busy machine a node takes a minute to start
)
CROWD = 500

pytestmark = pytest.mark.simulation


@pytest.fixture(scope="module")
def place(tmp_path_factory, bundle, hospitals):
    """A server and three nodes, each behind a line that can be broken."""
    made = Deployment(tmp_path_factory.mktemp("outages"), bundle, hospitals)
    home = made.kits / "coordinator"
    made.lines = {name: Meddler(home, made.port) for name in made.names}
    for name, line in made.lines.items():
        made.edit(name, coordinator={"address": f"localhost:{line.port}"})
    try:
        made.start()
        yield made
    finally:
        made.stop()
        for line in made.lines.values():
            line.close()


@contextmanager
def crowd(place, size):
    """Somebody who holds `size` idle TLS connections, and comes back when sent away."""
    context = ssl.create_default_context(cafile=place.kits / "coordinator/ca.crt")
    seen = {"held": 0, "most": 0, "dialled": 0}
    loop = asyncio.new_event_loop()

    async def one():
        while True:
            with suppress(OSError):
                seen["dialled"] += 1
                reader, writer = await asyncio.open_connection(
                    HOST, place.port, ssl=context, server_hostname="localhost"
                )
                seen["held"] += 1
                seen["most"] = max(seen["most"], seen["held"])
                try:
                    await reader.read(1)
                finally:
                    seen["held"] -= 1
                    writer.transport.abort()
            await asyncio.sleep(5)

    async def gather():
        await asyncio.gather(*(one() for _ in range(size)))

    def run():
        asyncio.set_event_loop(loop)
        task = loop.create_task(gather())
        seen["task"] = task
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        loop.call_soon_threadsafe(seen["task"].cancel)
        thread.join(30)


def everybody_in_every_round(place, run):
    records = place.records(run)
    assert [record["sites"] for record in records] == [place.names] * len(records)
    assert all(record["counted"] for record in records)


def events(place, name, run, event):
    """What a site's audit log says of the training orders of a run, or its answers."""
    return [
        entry
        for entry in place.journal(name)
        if (entry["event"], entry.get("kind"), entry.get("run"))
        == (event, "train", run)
    ]


def test_a_round_completes_under_500_idle_connections_and_broken_uploads(place):
    place.lines["hospital-a"].cut[PUSH_OBJECT] = 2
    place.lines["hospital-b"].swallow[PUSH_OBJECT] = 2
    with crowd(place, CROWD) as seen:
        wait(lambda: seen["dialled"] >= CROWD, what="the crowd")
        run = place.run("federation.generate_rounds=1", "seed=31", *SHORT)
        assert place.ended(run)["state"] == "finished"
        assert MOST_OF_KNOWN // 2 < seen["most"] <= MOST_STRANGERS + 64
    everybody_in_every_round(place, run)
    assert [place.lines[name].broken for name in place.names] == [2, 2, 0]
    # the lines were mended under the node: nothing was asked twice, let alone trained
    for name in place.names:
        assert [e.get("why", "") for e in events(place, name, run, "out")] == ["", ""]


@pytest.mark.slow
def test_a_reply_cut_off_by_the_end_of_its_node_is_sent_again_the_same(place):
    """The node is killed in mid-upload; its key counts as online for a minute."""
    line, node = place.lines["hospital-c"], place.nodes["hospital-c"]
    broken = line.broken
    run = place.run("federation.generate_rounds=1", "seed=32", *SHORT)
    wait(lambda: events(place, "hospital-c", run, "in"), what="the order")
    line.cut[PUSH_OBJECT] = 10**6
    wait(lambda: line.broken > broken, what="an upload that is cut off")
    assert node.kill("supernode")
    line.cut.clear()
    assert place.ended(run)["state"] == "finished"
    everybody_in_every_round(place, run)
    answers = events(place, "hospital-c", run, "out")
    first = [e for e in answers if e["round"] == 1]
    assert [e["decision"] for e in first] == ["sent"] * len(first)
    assert len({e["digest"] for e in first}) == 1
    assert [e.get("why", "") for e in first][1:] == ["repeated"] * (len(first) - 1)
    assert len(first) > 1


@pytest.mark.slow
def test_a_server_that_restarts_behind_forwarders_finds_its_hospitals_again(place):
    run = place.run("federation.generate_rounds=2", "seed=33", *SHORT)
    wait(lambda: place.records(run), what="round 1")
    place.server.kill()
    for line in place.lines.values():
        line.drop()
    vain = [line.vain for line in place.lines.values()]
    wait(
        lambda: all(
            line.vain > before
            for line, before in zip(place.lines.values(), vain, strict=True)
        ),
        what="handshakes that end early",
    )
    place.start_server()
    assert place.ended(run)["state"] == "finished"
    everybody_in_every_round(place, run)
    for name in place.names:
        site = place.site(name) / "site.yaml"
        done = command("vgmedgen-client", "check", "--site", site, check=False)
        assert "the coordinator heard it" in done.stdout
