"""The whole job once: sites, run, release, install, synthesis, evaluation, report.

Every phase leaves its result in the run's folder and is cheap to repeat, so the same
command goes on where a killed one stopped.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from server.launch import Launch
from server.registry import Registry
from simulations import engine, summary
from simulations.sites import check_sources, make_sites
from simulations.summary import Drawing, Shown
from vgmedgen.base import Bundle
from vgmedgen.config import load
from vgmedgen.config.run import RunConfig
from vgmedgen.errors import ConfigError
from vgmedgen.evaluation import report
from vgmedgen.files import visible
from vgmedgen.gate.release import ReleaseGate
from vgmedgen.release.store import Store
from vgmedgen.site.folder import Site
from vgmedgen.synthesis.asked import Ask
from vgmedgen.synthesis.job import Options, synthesize
from vgmedgen.training.loop import seed_of
from vgmedgen.training.public import base_for

log = logging.getLogger(__name__)

RUN_FILE = "run.yaml"
GATE_NUMBERS = (
    *("tried", "flagged", "share", "reasons", "threshold", "method", "false_alarms"),
    *("promised", "training", "heldout", "copies", "closer", "expected", "chance"),
)


@dataclass(frozen=True)
class Done:
    """Where a finished run left what people look for."""

    run: Path
    release: Path
    synthetic: dict[str, Path]
    report: Path


@dataclass
class Clock:
    """Seconds per phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time one phase and say so."""
        log.info("%s ...", name)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        log.info("%s: %.1f s", name, self.seconds[name])


def simulate(config: RunConfig) -> Done:
    """Run `config` from nothing, or from where its folder says it stopped.

    Raises:
        VGMedGenError: whatever a phase refuses; what was done stays.
    """
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    check_sources(config)
    run, clock = claim(config), Clock()
    with clock.phase("base bundle"):
        bundle = base_for(config)
    with clock.phase("preparing sites"):
        sites = [Site(folder) for folder in make_sites(config, bundle, run)]
        for site in sites:
            log.info("%s: %d images prepared", site.name, len(site.samples))
            site.check(config.plan)  # before anything trains, not once a round
    with clock.phase("federated training"):
        federate(config, bundle, sites, run)
    if config.study.without_dp:
        with clock.phase("the same run without DP"):
            twin(config, bundle, sites, run)
    with clock.phase("synthesis"):
        drawn = {site.name: draw(site, config) for site in sites}
    measured = summary.measure(config, bundle, sites, run, clock.phase)
    told = summary.report_of(config, bundle, sites, run, measured, drawn, clock.seconds)
    page = report.write(told, run)
    return Done(
        run,
        run / "release",
        {site.name: site.folder / "synthetic" for site in sites},
        page,
    )


def claim(config: RunConfig) -> Path:
    """The folder of this run: a new one, or the one that an equal run left unfinished.

    Raises:
        ConfigError: if `run.dir` names a folder of another run.
    """
    named = config.run.dir
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        folder = Path(named or f"runs/{config.experiment}{suffix}")
        told = folder / RUN_FILE
        if not told.is_file():
            if folder.is_dir() and any(visible(folder)):
                raise ConfigError(f"{folder} is not empty and no run; choose another")
            folder.mkdir(parents=True, exist_ok=True)
            load.save(config, told)
            return folder.resolve()
        same = load.load_file(told).digest == config.digest
        if same and (named or not (folder / "report.json").is_file()):
            return folder.resolve()
        if named:
            raise ConfigError(
                f"run.dir {folder} holds a run of another configuration; choose another "
                "folder, or start with the configuration in its run.yaml"
            )
        number += 1


def run_id(config: RunConfig) -> str:
    """Name under which server and sites keep this run."""
    return f"{config.experiment}-{config.digest[:8]}"


def federate(
    config: RunConfig, bundle: Bundle, sites: list[Site], run: Path
) -> Registry:
    """All rounds, the release and its installation, through Flower's engine."""
    launch = Launch.prepare(
        run=run_id(config),
        folder=run,
        config=config,
        bundle=bundle,
        weights=sites[0].bench(config.plan).states(),
    )
    engine.run(launch, [site.folder for site in sites], config.run)
    return Registry(run)


def twin(config: RunConfig, bundle: Bundle, sites: list[Site], run: Path) -> None:
    """Repeat a run without DP, on sites of its own: a ledger would refuse it."""
    free = replace(
        config,
        privacy=replace(config.privacy, enabled=False),
        study=replace(config.study, without_dp=False),
    )
    folder = run / summary.TWIN
    copies = [Site(path) for path in make_sites(free, bundle, folder)]
    for site, copy in zip(sites, copies, strict=True):
        shutil.copytree(
            site.folder / "cache", copy.folder / "cache", dirs_exist_ok=True
        )
    federate(free, bundle, copies, folder)


def draw(site: Site, config: RunConfig) -> Drawing:
    """Synthesise at one site from captions of its held-out images.

    Where too few images are held out for a release gate, nothing is compared and every
    image is marked so: a virtual site allows that, a hospital has to say it does.
    """
    out = site.folder / "synthetic"
    shutil.rmtree(out, ignore_errors=True)
    told, heldout = config.synthesis, site.heldout
    first = seed_of(config.seed, site.name, "synthesis") % 2**31
    asks = [
        Ask(
            number=number,
            prompt=heldout.captions[row],
            seed=first + number,
            label=heldout.records[row].label,
        )
        for number, row in enumerate(chosen(len(heldout), told.images))
    ]
    model = Store(site.folder / "releases").current()
    why = without_gate(site)
    options = Options(
        steps=told.steps, guidance=told.guidance, device=str(site.device), gate=not why
    )
    result = synthesize(site, model, asks, out, options)
    shown = [Shown(image, asks[int(image.stem)]) for image in result.kept]
    if result.report is None:
        log.warning("%s: its images are not cleared: %s", site.name, why)
        return Drawing(shown, {"tried": result.drawn, "why": why})
    log.info(
        "%s: %d images cleared, %d in quarantine",
        site.name,
        len(result.cleared),
        result.quarantined,
    )
    numbers = result.report.to_json()
    return Drawing(shown, {name: numbers[name] for name in GATE_NUMBERS})


def without_gate(site: Site) -> str:
    """Why the site's release gate cannot be opened; empty where it can, and then is."""
    log.info("%s: opening the release gate", site.name)
    try:
        ReleaseGate.of(site)
    except ConfigError as error:
        return str(error)
    return ""


def chosen(count: int, images: int) -> list[int]:
    """Rows spread evenly over `count` held-out images."""
    return [
        round(k * (count - 1) / max(1, images - 1)) for k in range(min(count, images))
    ]
