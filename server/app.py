"""The Flower server app: plays the rounds of one run, then publishes its release."""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server import accepting
from server.facts import facts
from server.launch import Launch
from server.orders import Orders
from server.post import Post
from server.registry import Registry
from server.strategy import Strategy
from server.weights import Weights
from vgmedgen.config.ranges import digest_of
from vgmedgen.errors import ConfigError, StateError, VGMedGenError
from vgmedgen.exchange.payload import on_wire
from vgmedgen.files import write_text
from vgmedgen.release.signature import FILE, Signature, check, sign
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
        key: signs every message, and the release; a simulation has none.
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
        accepting.check(launch, registry)
        # Sites rebuild the release from what arrives, so it is made of that here too.
        specs = launch.schema.down()
        weights = {group: on_wire(final[group], specs[group]) for group in specs}
        manifest = publish(
            launch.folder / RELEASE, launch, facts(launch, registry), weights
        )
        signature = sign_release(launch.folder, json.loads(manifest), key)
        log.info("release of run %s is in %s", launch.run, launch.folder / RELEASE)
        registry.installed(
            digest_of(json.loads(manifest)),
            strategy.install(manifest, signature, weights),
        )

    return app


def sign_release(
    folder: Path, manifest: Mapping[str, Any], key: SigningKey | None
) -> str:
    """Sign the release of the run in `folder`; a simulation, without a key, signs nothing.

    A run that is taken up again makes the same release: it keeps signature and date, so
    that its sites get the very message that some of them have answered.

    Returns:
        The signature, JSON; empty without a key.

    Raises:
        StateError: if it cannot be written.
    """
    if key is None:
        return ""
    # publishing replaces the release's folder: what must outlive that lies beside it
    path = folder / FILE
    found = _signed_before(path, manifest, key)
    if found is None:
        found = sign(manifest, key, datetime.now(UTC))
        write_text(path, found.to_json())
    write_text(folder / RELEASE / FILE, found.to_json())
    return found.to_json()


def _signed_before(
    path: Path, manifest: Mapping[str, Any], key: SigningKey
) -> Signature | None:
    try:
        found = Signature.from_json(path.read_text(encoding="utf-8"))
        check(found, manifest, [key.public])
    except (OSError, ValueError, VGMedGenError):
        return None  # not signed yet, another release's, or damaged
    return found


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
