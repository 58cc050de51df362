"""A hospital is removed while a run is on: what it, the run and the others see."""

import pytest

from tests.federation.processes import Deployment, command, wait
from vgmedgen.trust.journal import Journal

pytestmark = pytest.mark.simulation

GONE = "hospital-c"


@pytest.fixture(scope="module")
def place(tmp_path_factory, bundle, hospitals):
    made = Deployment(tmp_path_factory.mktemp("removal"), bundle, hospitals)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_it_is_shut_out_and_the_run_goes_on_without_it(place):
    asked = ("federation.align_rounds=1", "federation.generate_rounds=6")
    run = place.run(*asked, "federation.evaluate=false")
    wait(lambda: place.records(run), what="round 1")
    assert place.records(run)[0]["sites"] == place.names
    told = command(
        "vgmedgen-server", "remove", GONE, "--yes", "--kits", place.kits
    ).stdout
    assert f"run {run} goes on without it, with 2 sites" in told
    assert place.ended(run)["state"] == "finished"
    last = place.records(run)[-1]
    assert last["sites"] == ["hospital-a", "hospital-b"]
    assert last["left_out"] == {GONE: "removed"}
    home = place.kits / "coordinator/state"
    events = [
        e for e in Journal(home / "audit.jsonl").entries() if e["event"] == "remove"
    ]
    assert [e["site"] for e in events] == [GONE]
    assert not (place.site(GONE) / "releases" / "current").exists()

    # the hospital sees it in its log, and in its check
    node = place.nodes[GONE]
    wait(lambda: "its key is" in node.text, what="a word of the node")
    site = place.site(GONE) / "site.yaml"
    done = command("vgmedgen-client", "check", "--site", site, check=False)
    assert done.returncode == 1
    (line,) = [x for x in done.stdout.splitlines() if " registered " in x]
    assert line.startswith("✗ registered")
    assert "does not know this node's key" in line

    # and a new run does not wait for it
    again = place.run("seed=3", *asked[:1], "federation.generate_rounds=1")
    assert place.ended(again)["state"] == "finished"
    assert all(r["sites"] == ["hospital-a", "hospital-b"] for r in place.records(again))
