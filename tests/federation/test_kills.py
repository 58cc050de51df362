"""kill -9 at random moments: a run ends as if nothing had been, or says what was lost."""

import logging
import time

import numpy as np
import pytest

from tests.federation.processes import Deployment, command, wait

KILLS = 20
ROUNDS = 16
KINDS = ("superlink", "player", "server", "supernode", "runner", "node")
ASKED = (
    "federation.align_rounds=1",
    f"federation.generate_rounds={ROUNDS - 1}",
    "federation.evaluate=false",
    "federation.round_timeout_s=600",
)

log = logging.getLogger(__name__)

pytestmark = [pytest.mark.slow, pytest.mark.simulation]


@pytest.fixture(scope="module")
def place(tmp_path_factory, bundle, hospitals):
    made = Deployment(tmp_path_factory.mktemp("kills"), bundle, hospitals)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def strike(place, luck):
    """Kill one process, and start again what nobody else would; says what it was."""
    what = str(luck.choice(KINDS))
    name = str(luck.choice(place.names))
    if what in {"superlink", "player"}:
        return what if place.server.kill(what) else ""
    if what == "server":
        place.server.kill()
        place.start_server()
        return what
    node = place.nodes[name]
    if what in {"supernode", "runner"}:
        return f"{what} of {name}" if node.kill(what) else ""
    node.kill()
    place.start_node(name)
    return f"node of {name}"


def test_a_run_survives_twenty_kills(place, caplog):
    caplog.set_level(logging.INFO)
    calm = place.run("--name", "calm", *ASKED)
    assert place.ended(calm, 900)["state"] == "finished"
    assert all(r["sites"] == place.names for r in place.records(calm))

    luck, struck = np.random.default_rng(20), []
    rough = place.run("--name", "rough", *ASKED)
    wait(lambda: place.records(rough), 300, what="round 1")
    while len(struck) < KILLS and place.state(rough)["state"] != "finished":
        time.sleep(luck.uniform(0.0, 12.0))
        told = strike(place, luck)
        if told:
            struck.append(told)
    ended = place.ended(rough, 3600)
    log.info("%d kills: %s", len(struck), ", ".join(struck))
    assert ended["state"] == "finished", ended

    records = place.records(rough)
    assert [r["number"] for r in records] == list(range(1, ROUNDS + 1))
    whole = all(r["sites"] == place.names for r in records)
    for record in records:
        # nobody is missing without a word
        assert sorted([*record["sites"], *record["left_out"]]) == place.names
        assert record["counted"] == (len(record["sites"]) >= 2)
    if whole:
        assert place.last_weights(rough) == place.last_weights(calm)
    for name in place.names:
        command(
            "vgmedgen-client",
            "audit",
            "verify",
            "--site",
            place.site(name) / "site.yaml",
        )
    command("vgmedgen-server", "audit", "verify", "--kits", place.kits)
    lost = [record["left_out"] for record in records if record["left_out"]]
    log.info("rounds that lost a site: %d of %d: %s", len(lost), ROUNDS, lost)
