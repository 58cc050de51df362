"""`vgmedgen audit`: everything, on one site's own folder. Nothing is sent, nothing booked.

Canaries and checks train on fabricated units only and on models opened for the audit
alone, so an audit spends no privacy; membership reads what was trained before.
"""

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vgmedgen.audit import (
    canaries,
    conformance,
    copies,
    inversion,
    membership,
    models,
    recorded,
    twins,
)
from vgmedgen.audit.facts import facts
from vgmedgen.audit.page import page
from vgmedgen.audit.trainer import SiteTrainer, Trainer, noise_of
from vgmedgen.audit.verdict import CONFIDENCE, Claim, Evidence, Verdict, judge
from vgmedgen.config.plan import RunPlan
from vgmedgen.files import write_text
from vgmedgen.gate.features import Describer
from vgmedgen.models.codec import Codec
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.privacy.accountant import spent
from vgmedgen.privacy.ledger import FILE, Ledger
from vgmedgen.privacy.plan import LORA, MAPPER, PrivacyPlan
from vgmedgen.site.folder import Site
from vgmedgen.synthesis.job import TABLE
from vgmedgen.training.align import map_text
from vgmedgen.training.rounds import OUTCOME, Workbench
from vgmedgen.training.samples import Samples


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much an audit tries."""

    canaries: dict[str, int]  # by training
    draws: int  # timesteps per image in membership
    images: int  # to recover
    steps: int  # of each recovery
    spots: int  # steps of each recorded round that are computed again unit by unit
    worlds: int  # units whose losses are asked about in two worlds
    most: recorded.Most | None  # of the recorded training; None: all of it, as planned


QUICK = Effort(
    canaries={MAPPER: 256},
    draws=4,
    images=1,
    steps=300,
    spots=1,
    worlds=1,
    most=recorded.Most(units=32, steps=48, rounds=2),
)
FULL = Effort(
    canaries={MAPPER: 256, LORA: 128},
    draws=16,
    images=3,
    steps=300,
    spots=3,
    worlds=2,
    most=None,
)


def audit(
    site: Site,
    plan: RunPlan,
    *,
    model: Path | None,
    synthetic: Path | None,
    out: Path,
    quick: bool,
    trainer: Trainer | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Audit a site; write `audit.html` and `audit.json` into `out`.

    Args:
        site: whose data and models are attacked.
        plan: of the run.
        model: an installed pipeline folder; None takes the installed release. What the
            site itself sent last is attacked beside it.
        synthetic: a folder of `vgmedgen synthesize`; None takes the site's, if any.
        out: is made.
        quick: a minute or two rather than ten.
        trainer: an engine other than the installed one, for tests of the auditor.
        progress: called with the name of each part as it begins.

    Raises:
        ReleaseError: if `model` is no installed release.
        ConfigError: if `synthetic` holds no synthetic images.
        StateError: if the ledger is damaged, or the page cannot be written.
    """
    effort = QUICK if quick else FULL
    attacked = models.find(site.bundle, plan, site.folder, model)
    bench = Workbench.open(site.bundle, plan, site.device)
    engine = trainer or SiteTrainer(bench)
    claim, planned, why = claims(site, plan)
    # one confidence for all bounds together, divided among them
    bounds = len(effort.canaries) + 2 * len(attacked)
    each = 1 - (1 - CONFIDENCE) / bounds
    skipped = []
    found_checks: list[conformance.Finding] = []
    planted = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if planned is not None:
            progress("checks of the engine")
            found_checks = conformance.examine(engine, plan, site.training, folder)
            restarted = engine.restart()
            found_checks += recorded.examine(
                restarted,
                restarted.states(),
                plan,
                site.training,
                spots=effort.spots,
                units=effort.worlds,
                most=effort.most,
                progress=lambda part: progress(f"recorded training: {part}"),
            )
        for training, count in effort.canaries.items():
            progress(f"canaries in the training '{training}'")
            planted.append(
                canaries.plant(
                    engine,
                    training,
                    plan,
                    site.training,
                    folder,
                    count=count,
                    delta=plan.privacy.delta,
                    confidence=each,
                )
            )
    if quick:
        skipped.append("canaries in the training 'generate' (leave out --quick)")
    if quick and effort.most is not None and planned is not None:
        skipped.append(f"{effort.most.left_out()} (leave out --quick)")
    progress("held-out images that show a training image")
    shown = twins.twins(site.training, site.heldout)
    heldout = twins.without(site.heldout, shown)
    progress("membership")
    members = _membership(site, heldout, attacked, plan, effort, each)
    if not members:
        skipped.append(
            "membership: there is no model yet, or fewer than "
            f"{membership.FEWEST} units on a side"
        )
    progress("recovery of images")
    recovered = _recover(bench, engine, site.training, plan, effort)
    progress("copies")
    compared = _copies(site, heldout, synthetic) if len(heldout) else None
    if not len(heldout):
        skipped.append("copies: no held-out image is other than the training images")
    elif compared is None:
        skipped.append("copies: there are no synthetic images; name their folder")
    evidence = Evidence(
        claim=claim,
        planned=planned,
        why=why,
        unit=site.unit_kind,
        conformance=found_checks,
        membership=members,
        canaries=planted,
        recovered=recovered,
        copies=compared,
        twins=shown,
        skipped=skipped,
    )
    verdict = judge(evidence)
    told = facts(site.name, plan, evidence, verdict)
    write_text(out / "audit.json", json.dumps(told, indent=2, allow_nan=False) + "\n")
    write_text(out / "audit.html", page(site.name, plan, evidence, verdict))
    return verdict


def claims(site: Site, plan: RunPlan) -> tuple[Claim | None, Claim | None, str]:
    """What the site promises over all runs, what the plan does, and why nothing.

    Raises:
        StateError: if the ledger is damaged.
    """
    ask = plan.privacy
    if not ask.enabled:
        return None, None, "This run trains without differential privacy."
    cost = spent(PrivacyPlan.of(plan).whole(), ask.delta)
    planned = Claim(
        epsilon=ask.epsilon,
        delta=ask.delta,
        unit=site.unit_kind,
        accountant=cost.accountant,
        scope="this run",
    )
    if not (site.folder / FILE).is_file():
        if any((site.folder / "runs").glob(f"*/*/{OUTCOME}")):
            return None, planned, "Rounds were trained here that no ledger knows."
        return planned, planned, ""
    booked = Ledger.read(site.folder, site.name).worst_unit(delta=ask.delta)
    if math.isinf(booked.epsilon):
        why = "Units of this site were trained on without differential privacy before."
        return None, planned, why
    if booked.epsilon <= 0:
        return planned, planned, ""
    whole = Claim(
        epsilon=booked.epsilon,
        delta=ask.delta,
        unit=site.unit_kind,
        accountant=booked.accountant,
        scope="all runs of this site",
    )
    return whole, planned, ""


def _membership(
    site: Site,
    heldout: Samples,
    attacked: tuple[models.Model, ...],
    plan: RunPlan,
    effort: Effort,
    confidence: float,
) -> list[membership.Membership]:
    if not attacked:
        return []
    prior = VisualPrior.from_pretrained(site.bundle.part("visual_prior"))
    return membership.attack(
        models.base_model(site.bundle).to(site.device),
        [one.to(site.device) for one in attacked],
        prior.to(site.device),
        models.schedule_of(site.bundle),
        site.training,
        heldout,
        delta=plan.privacy.delta,
        confidence=confidence,
        draws=effort.draws,
        seed=plan.seed,
    )


def _recover(
    bench: Workbench, engine: Trainer, training: Samples, plan: RunPlan, effort: Effort
) -> list[inversion.Recovered]:
    engine.restart()
    rows = [unit[0] for unit in training.by_unit()[: effort.images]]
    guarded = noise_of(plan, LORA) if plan.privacy.enabled else None
    return inversion.attack(
        models.Model("start", bench.mapper, bench.generator),
        bench.schedule,
        Codec.load(bench.bundle.part("vae")).to(bench.device),
        training.latents[rows],
        map_text(bench.mapper, training.embeddings[rows]),
        guarded=guarded,
        steps=effort.steps,
        seed=plan.seed,
    )


def _copies(
    site: Site, heldout: Samples, synthetic: Path | None
) -> copies.Copies | None:
    folder = synthetic or site.folder / "synthetic"
    if synthetic is None and not (folder / TABLE).is_file():
        return None
    files, pixels = copies.read_synthetic(folder, site.bundle.image_px)
    describe = Describer(
        Codec.load(site.bundle.part("vae")).to(site.device),
        VisualPrior.from_pretrained(site.bundle.part("visual_prior")).to(site.device),
    )
    return copies.compare(describe, files, pixels, site.training, heldout)
