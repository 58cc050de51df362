"""Prepare a run at the coordinator, hand it to the running server, follow and stop it."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from server import accepting, place, runs, waiting
from server.kits import Kits
from server.launch import Launch
from server.registry import Registry, RoundRecord
from server.roundline import line
from vgmedgen.config import load
from vgmedgen.config.run import RunConfig
from vgmedgen.errors import ConfigError, StateError, error_of
from vgmedgen.exchange.schema import WORDS

POLL_S = 1.0
DEPLOYED = (
    f"federation.wait_s={24 * 3600}",  # people approve runs, and go home
    "federation.weight_cap=2",  # nobody can check what a hospital says that it has
    "federation.norm_bound=2",  # nor what it has trained on
)


def launch(
    kits: Kits,
    overrides: list[str],
    *,
    name: str | None = None,
    release_anyway: bool = False,
) -> str:
    """Prepare a run and queue it; one that was stopped or failed goes on.

    Args:
        kits: of this coordinator, whose server must run.
        overrides: key=value, as everywhere.
        name: id of the run; made from experiment and configuration by default.
        release_anyway: release a run whose last rounds did not count as it is.

    Returns:
        The run's id.

    Raises:
        ConfigError: if the configuration is not a run, or the name is another run's.
        UnreachableError: if no server runs.
        VGMedGenError: if base bundle or key cannot be used.
    """
    place.ports(kits.state)
    config = _config(kits, overrides)
    run = name or f"{config.experiment}-{config.digest[:8]}"
    if not re.fullmatch(WORDS["run"], run):
        raise ConfigError(
            f"run name '{run[:70]}' must be at most 64 letters, digits, dots, dashes"
        )
    folder = runs.folder_of(kits.state, run)
    if run in runs.runs_of(kits.state):
        _check_same(folder, config)
        if release_anyway:
            accepting.accept(folder)
        _go_on(folder)
        return run
    if release_anyway:
        raise StateError(
            f"there is no run '{run}' to release anyway; start it without --release-anyway"
        )
    _prepare(kits, config, run, folder)
    return run


def follow(kits: Kits, run: str) -> Iterator[str]:
    """What happens in a run, line by line, until it ends.

    Raises:
        VGMedGenError: if the run failed; as it was refused.
        UnreachableError: if the server stopped.
    """
    folder = runs.folder_of(kits.state, run)
    prepared = Launch.load(runs.launch_file(folder))
    privacy = prepared.config.privacy
    shown, state, waited = 0, "", ""
    while True:
        now = runs.read(folder)
        if now.state != state:
            state = now.state
            yield f"run {run}: {state}"
            if state == runs.RUNNING:
                yield waiting.rule(prepared.config.federation, prepared.sites)
        told = waiting.read(folder) if state == runs.RUNNING else None
        if told is not None and told.line != waited:
            waited = told.line
            yield waited
        records = Registry(folder).rounds()
        for record in records[shown:]:
            kept = {k: v for k, v in record.items() if k != "weights"}
            yield line(RoundRecord(**kept), privacy)
        shown = len(records)
        if state == runs.FAILED:
            raise error_of(now.code, f"run {run} failed: {now.why}")
        if state in runs.ENDED:
            if state == runs.FINISHED:
                yield f"release {folder / 'release'}"
            return
        place.ports(kits.state)
        time.sleep(POLL_S)


def stop(kits: Kits, run: str) -> None:
    """Stop a run; `launch` with the same configuration goes on.

    Raises:
        StateError: if there is no such run, or it has ended.
    """
    if run not in runs.runs_of(kits.state):
        known = ", ".join(runs.runs_of(kits.state)) or "none"
        raise StateError(f"there is no run '{run}'; there are: {known}")
    folder = runs.folder_of(kits.state, run)

    def stopped(now: runs.RunState) -> runs.RunState:
        if now.state in runs.ENDED:
            raise StateError(f"run {run} has ended already: {now.state}")
        return runs.made(runs.STOPPED, engine=now.engine, attempts=now.attempts)

    runs.change(folder, stopped)


def _config(kits: Kits, overrides: list[str]) -> RunConfig:
    config = load.load_run([*DEPLOYED, *overrides])
    if config.base.folder:
        return config
    return replace(config, base=replace(config.base, folder=str(kits.config.base)))


def _check_same(folder: Path, config: RunConfig) -> None:
    known = Launch.load(runs.launch_file(folder)).config
    if known.digest != config.digest:
        raise ConfigError(
            f"run {folder.name} exists with another configuration; choose another "
            "--name, or start it as it was"
        )


def _go_on(folder: Path) -> None:
    try:
        runs.read(folder)
    except StateError:  # lost, or never written: nobody plays it, its rounds tell all
        runs.write(folder, runs.QUEUED)

    def queued(now: runs.RunState) -> runs.RunState | None:
        if now.state == runs.FINISHED:
            raise StateError(
                f"run {folder.name} is finished, its release is in "
                f"{folder / 'release'}; choose another --name to train again"
            )
        return runs.made(runs.QUEUED) if now.state in runs.ENDED else None

    runs.change(folder, queued)


def _prepare(kits: Kits, config: RunConfig, run: str, folder: Path) -> None:
    import torch  # noqa: PLC0415 - costs seconds

    from vgmedgen.base import open_bundle  # noqa: PLC0415
    from vgmedgen.training.rounds import Workbench  # noqa: PLC0415

    nodes = kits.nodes()
    if len(nodes) < config.federation.min_sites:
        raise ConfigError(
            f"{len(nodes)} sites have a registered key, the run needs "
            f"federation.min_sites={config.federation.min_sites}; register more with "
            "`vgmedgen-server register SITE node.pub`"
        )
    bundle = open_bundle(Path(config.base.folder))
    bench = Workbench.open(bundle, config.plan, torch.device("cpu"))
    # before the launch file, which makes it a run: no run is ever without a state
    runs.write(folder, runs.QUEUED)
    Launch.prepare(
        run=run,
        folder=folder,
        config=config,
        bundle=bundle,
        weights=bench.states(),
        sites=len(nodes),
        coordinator=kits.signing_key().public,
        nodes=nodes,
    )


def go_on_anyway(kits: Kits, run: str) -> None:
    """Release a run whose last rounds did not count, as somebody has just decided.

    Raises:
        StateError: if there is nothing to decide, or it cannot be written.
    """
    folder = runs.folder_of(kits.state, run)
    accepting.accept(folder)
    _go_on(folder)
