"""The Flower server app: plays the rounds of one run, then publishes its release."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.launch import Launch
from server.orders import Orders
from server.post import Post
from server.registry import Registry
from server.strategy import Strategy
from server.weights import Weights
from vgmedgen.errors import ConfigError, StateError
from vgmedgen.exchange.payload import on_wire
from vgmedgen.ranges import digest_of
from vgmedgen.trust.signing import SigningKey

log = logging.getLogger(__name__)

RUN_FILE = "run-file"
RELEASE = "release"

Publish = Callable[[Path, Launch, Mapping[str, object], Weights], str]
"""(folder, launch, facts of the run, final weights) -> the release's manifest, JSON."""


def build(publish: Publish, key: SigningKey | None = None) -> ServerApp:
    """The server app that publishes by `publish`.

    Its run config names a launch file (see `server.launch`) under `run-file`.

    Args:
        publish: writes the release.
        key: signs every message; a simulation has none.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        named = context.run_config.get(RUN_FILE)
        if not named:
            raise ConfigError(
                f"the run config has no '{RUN_FILE}'; it names the launch file of a run"
            )
        launch = Launch.load(Path(str(named)))
        registry = Registry(launch.folder)
        registry.open(
            {
                "run": launch.run,
                "config": launch.config.digest,
                "base": launch.base_digest,
                "exchange": launch.schema.digest,
            },
            launch.start(),
        )
        strategy = Strategy(Post(grid), Orders(launch, key), registry)
        final = strategy.run()
        if not any(record["counted"] for record in registry.rounds()):
            raise StateError(
                f"no round of run {launch.run} counted, so there is nothing to release; "
                f"the records in {launch.folder / 'rounds'} say who was left out and why"
            )
        # Sites rebuild the release from what arrives, so it is made of that here too.
        specs = launch.schema.down()
        weights = {group: on_wire(final[group], specs[group]) for group in specs}
        manifest = publish(
            launch.folder / RELEASE, launch, facts(launch, registry), weights
        )
        log.info("release of run %s is in %s", launch.run, launch.folder / RELEASE)
        registry.installed(
            digest_of(json.loads(manifest)), strategy.install(manifest, weights)
        )

    return app


def facts(launch: Launch, registry: Registry) -> dict[str, object]:
    """What a release tells of its run; the same for every time it is published."""
    federation = launch.config.federation
    took_part = {
        site
        for record in registry.rounds()
        if record["counted"]
        for site in record["sites"]
    }
    told: dict[str, object] = {
        "run": launch.run,
        "experiment": launch.config.experiment,
        "config": launch.config.digest,
        "rounds": federation.rounds,
        "align_rounds": federation.align_rounds,
        "generate_rounds": federation.generate_rounds,
        "sites": sorted(took_part),
    }
    privacy = launch.config.privacy
    if privacy.enabled:
        told["privacy"] = {
            "epsilon": privacy.epsilon,
            "delta": privacy.delta,
            "unit": privacy.unit,
            "spent": _spent(registry),
        }
    return told


def _spent(registry: Registry) -> dict[str, float]:
    """What each site said last that it had spent, over all its runs."""
    found: dict[str, float] = {}
    for record in registry.rounds():
        found |= record["epsilon"]
    return dict(sorted(found.items()))


def publish_release(
    folder: Path, launch: Launch, told: Mapping[str, object], weights: Weights
) -> str:
    """Write a run's release; returns its manifest, JSON."""
    # Imported with the first release: it brings torch and the models.
    from vgmedgen.base import open_bundle  # noqa: PLC0415
    from vgmedgen.release.write import write  # noqa: PLC0415

    bundle = open_bundle(launch.base, expect=launch.base_digest)
    return json.dumps(write(folder, bundle, launch.config.plan, weights, told))


app = build(publish_release)
