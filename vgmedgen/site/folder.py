"""One hospital's folder and what is done in it.

`site.yaml` names the site, its base bundle and its data. Everything durable lives in this
folder: prepared samples, one folder per round, releases, the ledger.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch

from vgmedgen.base import Bundle, open_bundle
from vgmedgen.config.load import plan_from_json
from vgmedgen.config.plan import RunPlan
from vgmedgen.data import images, split
from vgmedgen.data.records import Dataset
from vgmedgen.errors import (
    BaseError,
    ConfigError,
    PolicyError,
    StateError,
)
from vgmedgen.evaluation.fitness import heldout_loss, measure
from vgmedgen.exchange.schema import ExchangeSchema
from vgmedgen.privacy import facts
from vgmedgen.privacy.chain import Row
from vgmedgen.privacy.facts import MIXED
from vgmedgen.privacy.ledger import Ledger
from vgmedgen.privacy.mark import mark
from vgmedgen.release.fitness import Fitness
from vgmedgen.release.install import install
from vgmedgen.release.signature import Signature
from vgmedgen.release.verify import manifest_from
from vgmedgen.site import data
from vgmedgen.site.config import (
    FILE,
    Policy,
    SiteConfig,
    SitePrivacy,
    keys_of,
    load_config,
)
from vgmedgen.training import accountable, apart, rounds
from vgmedgen.training.order import Order, Outcome
from vgmedgen.training.rounds import Desk, Workbench
from vgmedgen.training.samples import Samples, join, prepare

SCRATCH = Path("dry-run", ".scratch")  # of a rehearsal, gone when it ends


class Site:
    """A hospital: its data, its models, its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load_config(folder / FILE)
        self.name = self.config.name
        self._given = keys_of(folder / FILE)
        self._prepared_apart = False

    @property
    def policy(self) -> Policy:
        """What the hospital lets a run do, as `site.yaml` says now.

        A limit that is tightened holds from the next message on, without a restart. A
        key that was set at the start and is gone is a file half written, and not a wish:
        its default may be wide open.

        Raises:
            ConfigError: if the file is no valid one any more.
        """
        return self._now.policy

    @property
    def privacy(self) -> SitePrivacy:
        """The site's own limit over all runs, as `site.yaml` says now."""
        return self._now.privacy

    @property
    def _now(self) -> SiteConfig:
        path = self.folder / FILE
        if not path.is_file():
            return load_config(path)  # refuses
        told = path.stat()
        now = _config(path, (told.st_ino, told.st_mtime_ns, told.st_size), self._given)
        if self.config.policy.coordinators and not now.policy.coordinators:
            raise ConfigError(
                f"{path} lists no coordinator any more; list one, or start again"
            )
        return now

    @cached_property
    def bundle(self) -> Bundle:
        """The base bundle, every byte of it checked once per process."""
        return _bundle(self._base, self.config.base_digest)

    @property
    def _base(self) -> str:
        """Folder of the base bundle; a relative one begins at the site's own."""
        named = self.config.base
        return str((self.folder / named).resolve()) if named else ""

    @property
    def base_digest(self) -> str:
        """Digest of the site's own base bundle."""
        return self.bundle.digest

    @cached_property
    def datasets(self) -> tuple[Dataset, ...]:
        """What the adapters read, cut to the site's units."""
        let = self.policy.identified_dicom
        found = tuple(
            data.read(source, self.folder, identified=let)
            for source in self.config.sources
        )
        data.check_names(found)
        return found

    @cached_property
    def samples(self) -> Samples:
        """All prepared samples of the site."""
        cache = self.folder / "cache"
        parts = [prepare(dataset, self.bundle, cache) for dataset in self.datasets]
        return join(parts)

    @cached_property
    def heldout_units(self) -> frozenset[str]:
        """Units that never train."""
        return data.heldout(self.config, self.datasets)

    @property
    def units(self) -> int:
        """Units that train, counted without preparing a sample."""
        every = {unit for dataset in self.datasets for unit in dataset.units}
        return len(every - self.heldout_units)

    @property
    def unit_kind(self) -> str:
        """What a unit is here: patient, lesion, image, or `mixed`."""
        kinds = {dataset.unit_kind for dataset in self.datasets}
        return kinds.pop() if len(kinds) == 1 else MIXED

    def members(self) -> dict[str, list[str]]:
        """Every unit of the site, held-out ones too, with digests of its images."""
        return self._members

    @cached_property
    def _members(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for dataset in self.datasets:
            for record in dataset.records:
                digest = images.file_digest(record.image)
                found.setdefault(record.unit, []).append(digest)
        return found

    def ledger(self) -> Ledger:
        """The site's ledger; a first one, if nothing was ever trained here.

        Raises:
            StateError: if it is damaged, lost, moved or another site's.
        """
        return Ledger.at(self.folder, self.name)

    @property
    def booked(self) -> frozenset[tuple[str, int]]:
        """Run and round of all that the ledger holds."""
        return facts.rounds(self._rows())

    @property
    def mark(self) -> str:
        """How far the ledger has come, as it may be told (see `privacy.mark`)."""
        return mark(self._rows())

    def _rows(self) -> list[Row]:
        ledger = Ledger.at_hand(self.folder, self.name)
        return ledger.rows() if ledger else []

    @property
    def training(self) -> Samples:
        """Samples that train."""
        return self.samples.of_units(self.heldout_units, inside=False)

    @property
    def heldout(self) -> Samples:
        """Samples that never train."""
        return self.samples.of_units(self.heldout_units)

    @cached_property
    def device(self) -> torch.device:
        """Where the site trains."""
        if self.config.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.config.device)

    def bench(self, plan: RunPlan) -> Workbench:
        """The models, loaded once per process and base."""
        return _bench(self._base, self.bundle.digest, plan, str(self.device))

    def schema(self, plan: RunPlan) -> ExchangeSchema:
        """The exact tensors that may leave, built from the site's own base bundle."""
        return ExchangeSchema.of(self.bench(plan).states())

    def check(self, plan: RunPlan) -> None:
        """Refuse a run that this site's data cannot be trained by.

        Raises:
            DataError: if there are fewer units than a batch, or under DP units are mixed
                or shared.
            PolicyError: if the data cannot keep the run's claim.
        """
        samples = self.training
        if plan.privacy.enabled:
            members = self.members()
            accountable.check(plan, self.datasets, samples, members, self.name)
        else:
            batch = max(plan.align.batch, plan.generate.batch)
            split.check_enough(samples.units, batch, self.name)

    def train(self, order: Order) -> Outcome:
        """Train one round, after the ledger has booked it.

        Raises:
            DataError: if there are fewer units than a batch.
            PolicyError: if the run asks for more than the site allows, or its data
                cannot keep the run's claim.
            StateError: if the ledger cannot be written, or another process trains here.
            TrainingError: if a loss is not finite.
        """
        if order.plan.privacy.enabled:
            accountable.check_turn(order)  # before data are read: it hangs on none
        samples, limit = self.training, self.privacy
        self.check(order.plan)
        bench = self.bench(order.plan)
        if order.plan.privacy.enabled:
            self._check_apart(bench)
        desk = Desk(self.name, samples, self.folder / "runs")
        ledger = self.ledger()
        with ledger.working():
            accountable.check_history(ledger, desk.folder)
            booking = accountable.book(
                ledger, order, bench.bundle, self.members(), self.unit_kind, limit
            )
            outcome = accountable.answer(ledger, booking, bench, desk, order)
        if not order.plan.privacy.enabled:
            return outcome
        # of all that was ever booked: what hung on who is in the cohort would tell of them
        spent = ledger.spent(delta=order.plan.privacy.delta)
        return replace(outcome, epsilon=spent.epsilon)

    def rehearse(self, order: Order) -> Outcome:
        """Train one round for the hospital's eyes: nothing is booked, nothing is kept.

        The visual prior starts anew, as no earlier round left one. The epsilon is what
        the ledger would have come to.

        Raises:
            DataError: if there are fewer units than a batch.
            PolicyError: if the ledger would have refused the round, or its data cannot
                keep the run's claim.
            TrainingError: if a loss is not finite.
        """
        if order.plan.privacy.enabled:
            accountable.check_turn(order)
        samples, scratch = self.training, self.folder / SCRATCH
        self.check(order.plan)
        ledger = Ledger.at_hand(self.folder, self.name)
        if ledger is not None:
            accountable.check_history(ledger, self.folder / "runs")
        epsilon = accountable.rehearse(
            *(ledger, order, self.bundle, self.members(), self.unit_kind, self.privacy)
        )
        bench = self.bench(order.plan)
        shutil.rmtree(scratch, ignore_errors=True)  # of a rehearsal that was killed
        try:
            scratch.mkdir(parents=True, mode=0o700)
            outcome = rounds.train(bench, Desk(self.name, samples, scratch), order)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return replace(outcome, epsilon=epsilon)

    def _check_apart(self, bench: Workbench) -> None:
        """Refuse unless what is prepared of a sample hangs on that sample alone."""
        if not self._prepared_apart:  # they are read once, and so looked at once
            apart.check_prepared(self.bundle, self.samples)
            self._prepared_apart = True
        apart.check_models(bench.prior, bench.mapper, self.bundle.image_px)

    def plan_of(self, run: str | None = None) -> RunPlan:
        """The plan of a run that trained here; of the latest one by default.

        Raises:
            StateError: if no such run trained here.
        """
        found = sorted(
            (self.folder / "runs").glob(f"{run or '*'}/{rounds.PLAN}"),
            key=lambda path: path.stat().st_mtime,
        )
        if not found:
            raise StateError(
                f"no run{f' {run!r}' if run else ''} trained in {self.folder / 'runs'}; "
                "an audit needs the plan of one"
            )
        return plan_from_json(found[-1].read_text(encoding="utf-8"))

    def evaluate(self, order: Order) -> Outcome:
        """Held-out denoising loss of the order's weights.

        Raises:
            PolicyError: where the site or the run limits privacy, or few units are held
                out: a loss without noise tells of the patients it was measured on.
        """
        if self.privacy.epsilon > 0 or order.plan.privacy.enabled:
            raise PolicyError(
                f"{self.name} does not tell its held-out loss under differential "
                "privacy; start the run with federation.evaluate=false"
            )
        bench, samples = self.bench(order.plan), self.heldout
        if samples.units < self.policy.min_heldout:
            raise PolicyError(
                f"{self.name} holds {samples.units} units out, fewer than "
                f"policy.min_heldout={self.policy.min_heldout}: its loss would tell of "
                "single patients"
            )
        loss = heldout_loss(bench, samples, order.weights, order.plan.seed)
        units = samples.units
        return Outcome(state={}, units=units, loss_sum=units * loss)

    def fitness(
        self, plan: RunPlan, weights: Mapping[str, Mapping[str, np.ndarray]]
    ) -> Fitness | None:
        """How a release does on the site's held-out images, beside what it replaces.

        Nothing of it leaves the site. None where the site does not compare, or holds no
        image out.
        """
        margin, releases = self.policy.worse_by, self.folder / "releases"
        if not margin or not len(self.heldout):
            return None
        return measure(self.bench, self.heldout, releases, plan, weights, margin)

    def install(
        self, order: Order, manifest: str, signature: Signature | None = None
    ) -> str:
        """Install a release whose signature was checked; returns its digest."""
        told = manifest_from(manifest)
        place, weights = self.folder / "releases", order.weights
        return install(
            *(place, self.bundle, order.plan, weights, told, signature),
            judge=self.fitness,
        )


@lru_cache(maxsize=64)
def _config(path: Path, _: tuple[int, int, int], given: frozenset[str]) -> SiteConfig:
    """`site.yaml`, read again whenever the file is another.

    Raises:
        ConfigError: if it is no valid one, or lacks a key that it had at the start.
    """
    config = load_config(path)
    missing = sorted(given - keys_of(path))
    if missing:
        raise ConfigError(
            f"{path} has lost {', '.join(missing[:4])} since the start; put that back, or "
            "restart the node if it is meant"
        )
    return config


@lru_cache(maxsize=4)
def _bundle(folder: str, digest: str) -> Bundle:
    if not folder:
        raise BaseError("site.yaml names no base bundle; set base: /path/to/bundle")
    return open_bundle(Path(folder), expect=digest)


@lru_cache(maxsize=2)
def _bench(folder: str, digest: str, plan: RunPlan, device: str) -> Workbench:
    bundle = open_bundle(Path(folder), expect=digest)
    return Workbench.open(bundle, plan, torch.device(device))
