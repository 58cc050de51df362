"""Made-up states of a coordinator: what its page and its view have to show."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from server import runs
from server.launch import Launch
from server.provision import provision
from server.registry import Registry, RoundRecord
from server.standing import RunStatus
from server.status import NodeStatus, Status
from vgmedgen.base import open_bundle, seal
from vgmedgen.config.load import load_run

NOW = datetime(2026, 11, 21, 9, 12, 31, tzinfo=UTC)
BASE = "1a2b3c4d5e6f" + "0" * 52
MANY = ("VG42", "late", "offline", "VG41", "VG50", "VG43")


def status(**facts):
    asked = {
        "at": NOW,
        "name": "coordinator",
        "host": "fl.example.org",
        "port": 8443,
        "running": True,
        "base": BASE,
        "expiries": {
            "ca": NOW + timedelta(days=3650),
            "server": NOW + timedelta(days=800),
        },
    }
    return Status(**(asked | facts))


def node(site, **facts):
    asked = {
        "registered": True,
        "online": True,
        "last_seen": NOW - timedelta(seconds=3),
        "base": BASE,
        "base_ok": True,
        "version": "0.1.0",
    }
    return NodeStatus(site=site, **(asked | facts))


def records(sites, count, *, align=2, seed=0, private=False, trouble=0.0):
    """Rounds in which each site is left out, or away, with some chance."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(1, count + 1):
        luck = {site: rng.random() for site in sites}
        left = {
            site: MANY[int(rng.integers(len(MANY)))]
            for site in sites
            if luck[site] < trouble
        }
        took = [site for site in sites if luck[site] >= 1.5 * trouble]
        stage = "align" if number <= align else "generate"
        loss = {site: 0.3 / number + 0.4 + 0.02 * rng.random() for site in took}
        found.append(
            RoundRecord(
                number=number,
                stage=stage,
                counted=len(took) >= 2,
                sites=took,
                left_out=left,
                seconds=40 + 20 * rng.random(),
                units={} if private else dict.fromkeys(took, 40),
                loss={} if private else loss,
                epsilon=dict.fromkeys(took, 0.9 * number**0.5 * private),
                bytes_to=dict.fromkeys([*took, *left], 1_283_220),
                bytes_from=dict.fromkeys(took, 641_610),
            )
        )
    return tuple(found)


def run(name, sites, done, **facts):
    asked = {
        "state": "running",
        "at": "2026-11-21T08:31:07+00:00",
        "experiment": "demo",
        "base": BASE,
        "round": done,
        "rounds": 5,
        "align_rounds": 2,
        "stage": "generate",
        "merge": "average",
        "min_sites": 2,
        "sites": tuple(sites),
    }
    asked |= facts
    if "records" not in asked:
        asked["records"] = records(sites, done, align=asked["align_rounds"])
    return RunStatus(run=name, **asked)


def nothing():
    return status(running=False)


def three():
    sites = ["hospital-a", "hospital-b", "hospital-c"]
    done = [*records(sites, 2)]
    late = {"hospital-c": "VG42"}
    done = [
        RoundRecord(**{**vars(r), "sites": sites[:2], "left_out": late}) for r in done
    ]
    third = records(sites, 3)[2]
    nodes = (
        node("hospital-a"),
        node("hospital-b", skew_s=41.0),
        node("hospital-c", refused="VG42", base_ok=False, base="ffee" * 16),
        node(
            "hospital-d",
            registered=False,
            online=False,
            last_seen=None,
            base="",
            base_ok=None,
            version="",
        ),
    )
    warn = (
        "the server certificate expires in 12 days (2026-12-03): vgmedgen-server renew",
    )
    return status(
        nodes=nodes,
        warnings=warn,
        runs=(run("demo-4f1c9a2b", sites, 3, records=(*done, third)),),
    )


def failed():
    sites = ["hospital-a", "hospital-b", "hospital-c"]
    why = (
        "1 of the 2 sites that a round needs are there after 120 s (3 nodes connected, "
        "refused: VG15); start the sites, then start the run again"
    )
    away = node("hospital-b", online=False, last_seen=NOW - timedelta(hours=5))
    older = [
        run(f"pilot-{n}", sites, 5, state="finished", stage="") for n in range(1, 4)
    ]
    bad = run("ham10000-77aa", sites, 1, state="failed", stage="", why=why, code="VG55")
    refused = node("hospital-c", base_ok=False, base="ee" * 32, refused="VG15")
    return status(nodes=(node("hospital-a"), away, refused), runs=(bad, *older))


def many():
    sites = [f"hospital-{letter}" for letter in "abcdefghijkl"]
    told = records(sites, 31, align=8, trouble=0.1)
    long = run(
        "consortium-2026-11",
        sites,
        31,
        rounds=40,
        align_rounds=8,
        records=told,
        experiment="three-hospitals",
    )
    return status(nodes=tuple(map(node, sites)), runs=(long,))


def private():
    sites = ["hospital-a", "hospital-b", "hospital-c"]
    long = run(
        "dp-8-0c9e1f",
        sites,
        9,
        rounds=12,
        align_rounds=4,
        merge="alternate",
        private=True,
        epsilon=8.0,
        delta=1e-5,
        unit="patient",
        experiment="dp-8",
        records=records(sites, 9, align=4, private=True, trouble=0.08, seed=3),
    )
    return status(nodes=tuple(map(node, sites)), runs=(long,))


def bounded():
    """One site sends far too much in every round; sites tell their held-out loss."""
    sites = ["hospital-a", "hospital-b", "hospital-c"]
    told = [
        replace(
            record,
            bounded={"hospital-c": 97.2},
            heldout_loss=dict.fromkeys(sites[:2], 0.08)
            if record.stage == "generate"
            else {},
        )
        for record in records(sites, 5)
    ]
    held = run(
        *("held-5d1c2b3a", sites, 5),
        records=tuple(told),
        weight_cap=2.0,
        norm_bound=2.0,
        state="finished",
        stage="",
    )
    return status(nodes=tuple(map(node, sites)), runs=(held,))


ALL = {
    "nothing": nothing,
    "bounded": bounded,
    "three": three,
    "failed": failed,
    "many": many,
    "private": private,
}


# --- the same as files, written by the modules that write them for real


def weights():
    return {
        "mapper": {"style.0.bias": np.zeros(3, np.float32)},
        "lora": {"dit.to_q.A": np.zeros((2, 4), np.float32)},
    }


def provisioned(folder, sites=("hospital-a", "hospital-b"), *, register=True):
    """A kits folder with a base bundle of one file; sites have keys if `register`."""
    base = folder / "base"
    (base / "vae").mkdir(parents=True)
    (base / "vae" / "weights.bin").write_bytes(b"weights")
    seal(base, {"image_px": 64})
    made = provision(
        sites=list(sites),
        host="127.0.0.1",
        port=8443,
        out=folder / "kits",
        base=base,
        make_keys=register,
    )
    return made.kits


def prepared(kits, name, *overrides, rounds=(), state="running", **facts):
    """A run of these kits, with its rounds on disk; returns its folder."""
    folder = runs.folder_of(kits.state, name)
    launch = Launch.prepare(
        run=name,
        folder=folder,
        config=load_run(("experiment=demo", *overrides)),
        bundle=open_bundle(Path(kits.config.base)),
        weights=weights(),
        coordinator=kits.signing_key().public,
        nodes=kits.nodes(),
    )
    registry = Registry(folder)
    registry.open({"run": name, "config": launch.config.digest}, weights())
    for record in rounds:
        registry.write(record, weights())
    runs.write(folder, state, **facts)
    return folder
