"""Measure a finished run, and put everything that the report tells into one mapping."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from server.registry import Registry
from simulations import study
from simulations.measure import Weights, align_agreement, loss_of, score
from simulations.sites import make_pooled
from vgmedgen import __version__
from vgmedgen.base import Bundle
from vgmedgen.config.plan import UNITS
from vgmedgen.config.run import RunConfig
from vgmedgen.data import images
from vgmedgen.evaluation.denoising import CaptionGap
from vgmedgen.privacy.accountant import spent
from vgmedgen.privacy.plan import PrivacyPlan
from vgmedgen.release.verify import digest, verify
from vgmedgen.site.folder import Site
from vgmedgen.synthesis.asked import Ask

TWIN = "without-dp"  # folder of a DP run's twin

Phase = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Shown:
    """A synthetic image on disk, and what it was asked by."""

    image: Path
    ask: Ask


@dataclass(frozen=True)
class Drawing:
    """What a site drew, and what its release gate said of it."""

    shown: list[Shown]  # without what was held back
    gate: dict[str, Any]  # numbers of the gate, or `why` nothing was compared


@dataclass
class Measured:
    """All numbers of the comparison, by site and model name."""

    scores: dict[str, dict[str, CaptionGap]] = field(default_factory=dict)
    local_on_sites: dict[str, dict[str, float]] = field(default_factory=dict)
    alignment: dict[str, Any] = field(default_factory=dict)


def measure(
    config: RunConfig, bundle: Bundle, sites: Sequence[Site], run: Path, phase: Phase
) -> Measured:
    """Score base, federated and, where the study asks, local and pooled models."""
    plan, registry = config.plan, Registry(run)
    found = Measured({site.name: {} for site in sites})
    start = registry.weights(0)
    models: dict[str, Weights] = {
        "base": start,
        "federated": registry.weights(config.federation.rounds),
    }
    if config.study.without_dp:
        models["without_dp"] = Registry(run / TWIN).weights(config.federation.rounds)
    if config.study.pooled:
        with phase("pooled training"):
            pooled = make_pooled(config, bundle, run, sites)
            models["pooled"] = study.train_alone(
                pooled, plan, config.federation, start, registry.run
            )
    alone: dict[str, Weights] = {}
    if config.study.local:
        with phase("local-only training"):
            for site in sites:
                alone[site.name] = study.train_alone(
                    site, plan, config.federation, start, f"{registry.run}-alone"
                )
    with phase("evaluation"):
        for site in sites:
            own = {"local": alone[site.name]} if alone else {}
            for name, weights in {**models, **own}.items():
                found.scores[site.name][name] = score(site, plan, weights, config.study)
        for name, weights in alone.items():
            found.local_on_sites[name] = {
                site.name: loss_of(site, plan, weights, config.study) for site in sites
            }
        found.alignment["rounds"] = [
            {
                "round": number,
                **align_agreement(
                    sites,
                    plan,
                    registry.run,
                    number,
                    registry.weights(number)["mapper"],
                ),
            }
            for number in range(1, config.federation.align_rounds + 1)
            if trains_prior(config)
        ]
    if config.study.alignment:
        with phase("alignment study"):
            found.alignment["variants"] = study.compare_alignment(
                sites, plan, config.federation, start, registry.run
            )
    return found


def report_of(
    config: RunConfig,
    bundle: Bundle,
    sites: Sequence[Site],
    run: Path,
    found: Measured,
    drawn: Mapping[str, Drawing],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The mapping behind the report page; also written as report.json."""
    registry = Registry(run)
    kinds = {dataset.unit_kind for site in sites for dataset in site.datasets}
    told: dict[str, Any] = {
        "title": config.experiment,
        "experiment": config.experiment,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.seed,
        "version": __version__,
        "run": registry.run,
        "config_digest": config.digest,
        "base": {"digest": bundle.digest, "source": bundle.manifest["source"]},
        "release": {
            "digest": digest(verify(run / "release")),
            "folder": str(run / "release"),
        },
        "unit_note": (
            "At least one dataset tells neither patients nor lesions: there the image is "
            "the unit, and two images of one patient may lie on both sides of a split."
            if "image" in kinds
            else None
        ),
        "sites": [_site(site) for site in sites],
        "rounds": registry.rounds(),
        "loss_curves": {site.name: _curves(site, registry.run) for site in sites},
        "heldout_denoising_loss": _table(found, lambda one: one.loss),
        "caption_gap": _table(found, lambda one: one.mean),
        "caption_gap_spread": _table(found, lambda one: one.spread),
        "alignment": found.alignment,
        "seconds": dict(seconds),
        "images": {site.name: _pairs(site, drawn[site.name].shown) for site in sites},
        "gate": {site.name: drawn[site.name].gate for site in sites},
        "notes": [],
    }
    if config.privacy.enabled:
        told["privacy"] = privacy_of(config, sites)
    if found.local_on_sites:
        told["local_on_sites"] = found.local_on_sites
        told["others"] = _others(found)
    return told


def trains_prior(config: RunConfig) -> bool:
    """Whether the sites' priors part from the base's, so that agreement says something."""
    return not config.privacy.enabled or config.privacy.prior == "private"


def privacy_of(config: RunConfig, sites: Sequence[Site]) -> dict[str, Any]:
    """What the run promises, with which noise, and what each ledger says."""
    plan = PrivacyPlan.of(config.plan)
    booked = {}
    for site in sites:
        limit = site.config.privacy
        found = site.ledger().spent(delta=limit.delta)
        booked[site.name] = {
            "unit": site.unit_kind,
            "epsilon": found.epsilon,
            "limit": limit.epsilon,
            "accountant": found.accountant,
        }
    return {
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "unit": plan.unit,
        "accountant": spent(plan.whole(), plan.delta).accountant,
        "trainings": [
            {
                "name": name,
                "stage": one.stage,
                "rounds": one.rounds,
                "steps": one.mechanism.steps,
                "rate": one.mechanism.rate,
                "noise": one.mechanism.noise,
                "clip": one.clip,
            }
            for name, one in plan.trainings.items()
        ],
        "sites": booked,
    }


def _others(found: Measured) -> dict[str, dict[str, float]]:
    """How the federated model does where the local-only ones are strangers."""
    local = {
        site: float(
            np.mean(
                [
                    row[site]
                    for name, row in found.local_on_sites.items()
                    if name != site
                ]
            )
        )
        for site in found.scores
    }
    federated = {site: one["federated"].loss for site, one in found.scores.items()}
    return {"federated": federated, "local_mean": local}


def _table(
    found: Measured, number: Callable[[CaptionGap], float]
) -> dict[str, dict[str, float]]:
    return {
        site: {name: number(one) for name, one in by_model.items()}
        for site, by_model in found.scores.items()
    }


def _site(site: Site) -> dict[str, Any]:
    training, heldout, datasets = site.training, site.heldout, site.datasets
    return {
        "name": site.name,
        "dataset": ", ".join(dataset.name for dataset in datasets),
        "modality": ", ".join(dataset.modality for dataset in datasets),
        "unit_kind": max((d.unit_kind for d in datasets), key=UNITS.index),
        "units": {"train": training.units, "heldout": heldout.units},
        "images": {"train": len(training), "heldout": len(heldout)},
        "labels": dict(
            sorted(Counter(record.label for record in site.samples.records).items())
        ),
    }


def _curves(site: Site, run: str) -> dict[str, list[list[float]]]:
    """Loss by step of every training at a site, rounds one after the other."""
    curves: dict[str, list[list[float]]] = {}
    for path in sorted((site.folder / "runs" / run).glob("round-*/losses.json")):
        for name, losses in json.loads(path.read_text(encoding="utf-8")).items():
            curve = curves.setdefault(name, [])
            first = len(curve) + 1
            steps = enumerate(losses, start=first)
            curve += [[step, loss] for step, loss in steps if loss is not None]
    return curves


def _pairs(site: Site, drawn: Sequence[Shown]) -> list[dict[str, Any]]:
    """Synthetic images beside the held-out images whose captions they were drawn from."""
    heldout, pairs = site.heldout, []
    rows = {caption: row for row, caption in enumerate(heldout.captions)}
    for one in drawn:
        pixels, _ = heldout.pixels([rows[one.ask.prompt]])
        # not below the synthetic images, which may be handed on
        path = site.folder / "real" / one.image.name
        path.parent.mkdir(exist_ok=True, mode=0o700)
        picture = images.as_uint8(pixels[0]).permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(path)
        pairs.append(
            {
                "real": str(path),
                "synthetic": str(one.image),
                "caption": one.ask.prompt,
                "seed": one.ask.seed,
            }
        )
    return pairs
