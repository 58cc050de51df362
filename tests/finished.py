"""A coordinator with finished runs, made in seconds: nothing trained, all of it signed."""

import json
from datetime import UTC, datetime

import numpy as np
import torch

from server import runs
from server.app import publish_release, sign_release
from server.facts import facts
from server.kits import Kits
from server.launch import Launch
from server.provision import provision
from server.registry import Registry, RoundRecord
from vgmedgen.base import Bundle
from vgmedgen.exchange.payload import on_wire
from vgmedgen.release.signature import FILE, sign
from vgmedgen.training.rounds import Workbench

SITES = {"hospital-a": 7, "hospital-b": 24}  # units


def coordinator(folder, bundle: Bundle) -> Kits:
    """A kits folder on a base bundle."""
    out = folder / "kits"
    provision(
        sites=list(SITES), host="fl.example.org", port=8443, out=out, base=bundle.folder
    )
    return Kits.open(out, serving=False)


def finish(kits, bundle, config, run, *, seed=0, created=None, losses=True):
    """Let `run` have been played to its end; returns its folder.

    Args:
        created: when its release was signed; by default now.
        losses: whether sites told theirs.
    """
    key, plan = kits.signing_key(), config.plan
    start = Workbench.open(bundle, plan, torch.device("cpu")).states()
    launch = Launch.prepare(
        run=run,
        folder=runs.folder_of(kits.state, run),
        config=config,
        bundle=bundle,
        weights=start,
        coordinator=key.public,
        nodes=dict.fromkeys(SITES, "0" * 64),
    )
    registry = Registry(launch.folder)
    draw = np.random.default_rng(seed)
    final = {
        group: {
            name: (a + 0.1 * draw.standard_normal(a.shape)).astype(np.float32)
            for name, a in arrays.items()
        }
        for group, arrays in start.items()
    }
    for number in range(1, config.federation.rounds + 1):
        registry.write(record(config, number, losses=losses), final)
    specs = launch.schema.down()
    weights = {group: on_wire(final[group], specs[group]) for group in specs}
    release = launch.folder / "release"
    manifest = json.loads(
        publish_release(release, launch, facts(launch, registry), weights)
    )
    sign_release(launch.folder, manifest, key)
    if created is not None:
        text = sign(manifest, key, created).to_json()
        for folder in (launch.folder, release):
            (folder / FILE).write_text(text)
    runs.write(launch.folder, runs.FINISHED, engine="1", attempts=1)
    return launch.folder


def record(config, number, *, losses=True):
    """A round in which every site took part."""
    stage = config.federation.stage(number)
    told = {site: 0.25 + 0.5 * (site == "hospital-b") for site in SITES}
    return RoundRecord(
        number=number,
        stage=stage,
        counted=True,
        sites=sorted(SITES),
        left_out={},
        seconds=1.0,
        units=SITES,
        loss=told if losses else {},
        epsilon=dict.fromkeys(SITES, 1.5) if config.privacy.enabled else {},
        heldout_loss=told if losses and stage == "generate" else {},
    )


def at(year):
    """A moment of that year."""
    return datetime(year, 3, 1, 9, 0, tzinfo=UTC)
