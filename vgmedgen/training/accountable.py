"""What must be settled before a round may train: checks, booking, and one answer each.

A round under DP is booked and on disk before its first step, and it is answered once: an
order that comes again gets the same bytes, another order for a booked round is refused,
because a second answer would be a second release that nobody paid for.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vgmedgen.base import Bundle
from vgmedgen.config.plan import UNITS, RunPlan
from vgmedgen.data.records import Dataset
from vgmedgen.errors import DataError, PolicyError, StateError
from vgmedgen.files import sha256
from vgmedgen.privacy import budget, decision, facts
from vgmedgen.privacy.accountant import Mechanism
from vgmedgen.privacy.chain import Row
from vgmedgen.privacy.decision import Asked
from vgmedgen.privacy.ledger import Booking, Cohort, Entry, Ledger
from vgmedgen.privacy.plan import PrivacyPlan
from vgmedgen.training import rounds
from vgmedgen.training.order import Order, Outcome
from vgmedgen.training.rounds import OUTCOME, Desk, Workbench
from vgmedgen.training.samples import Samples


class Limit(Protocol):
    """A site's own limit, over all runs."""

    @property
    def epsilon(self) -> float:
        """Per unit; 0 where the site sets none."""
        ...

    @property
    def delta(self) -> float:
        """At which epsilon is counted."""
        ...


def check(
    plan: RunPlan,
    datasets: Sequence[Dataset],
    samples: Samples,
    members: Mapping[str, Sequence[str]],
    site: str,
) -> None:
    """Refuse a run under DP whose claim this site's data cannot keep.

    Args:
        plan: of the run.
        datasets: of the site.
        samples: those that train.
        members: digests of every unit's images.
        site: its name.

    Raises:
        DataError: if sources have different units, one unit has most of the images,
            two units share one, or were joined because they did.
        PolicyError: if the unit is weaker than the run's, a step would expect too few
            units, or delta is too large for them.
    """
    ask = plan.privacy
    check_structure(datasets, site)
    kinds = sorted({dataset.unit_kind for dataset in datasets})
    if len(kinds) > 1:
        raise DataError(
            f"site {site} mixes units in one manifest ({', '.join(kinds)}); under DP all "
            "sources need the same unit: split the site, or complete the tables"
        )
    if UNITS.index(kinds[0]) > UNITS.index(ask.unit):
        raise PolicyError(
            f"the run protects each {ask.unit}, the data of site {site} only tells "
            f"{kinds[0]}s apart; name {ask.unit}s in the table, in a column "
            f"{ask.unit}_id, or run with privacy.unit={kinds[0]}, which protects less"
        )
    count = samples.units
    if ask.rate * count < ask.batch:
        raise PolicyError(
            f"site {site} has {count} units to train on: at rate {ask.rate:g} a step "
            f"expects {ask.rate * count:.1f} of them, the run's least is {ask.batch}; add "
            "data, or lower privacy.batch"
        )
    if ask.delta >= 1 / count:
        raise PolicyError(
            f"delta {ask.delta:g} is not below 1/{count}, one over the units of site "
            f"{site}: it would allow giving away one unit whole; lower privacy.delta"
        )
    unit, most = Counter(record.unit for record in samples.records).most_common(1)[0]
    if count > 1 and 2 * most > len(samples):
        raise DataError(
            f"unit '{unit}' holds {most} of the {len(samples)} images of site {site}; "
            "more than half are one unit's: check the column of units, or add data"
        )
    _check_apart(members, site)


def check_structure(datasets: Sequence[Dataset], site: str) -> None:
    """Refuse units that equal bytes have joined.

    A claim says what a unit's data may change while the units stay what they are. Where
    pixels say which images are one unit, changing one unit's picture makes one unit more
    or less, and with it the public number, the sampling and who is held out. Left apart,
    one person would be two units. So a table has to say it.

    Raises:
        DataError: naming the first two images.
    """
    for dataset in datasets:
        for one, other in dataset.copies:
            raise DataError(
                f"{one} and {other} of site {site} are the same bytes in two units, and a "
                "claim of privacy cannot rest on units that pixels decide; name one unit "
                "for both (a csv for grouping: vgmedgen data twins writes one), or remove "
                "one of them"
            )


def check_turn(order: Order) -> None:
    """Refuse a round under DP that is not in the run's plan, nor in its claim.

    Raises:
        PolicyError: with the round and the plan's last.
    """
    last = _rounds(order.plan)[order.stage]
    if order.turn > last:
        raise PolicyError(
            f"the order is for {order.stage} round {order.turn}, the run's plan and its "
            f"claim end at {last}"
        )


def _check_apart(members: Mapping[str, Sequence[str]], site: str) -> None:
    owners: dict[str, str] = {}
    for unit, images in sorted(members.items()):
        for image in images:
            if owners.setdefault(image, unit) != unit:
                raise DataError(
                    f"units '{owners[image]}' and '{unit}' of site {site} share an image: "
                    "one person in two units would be protected half; give both one name"
                )


def check_history(ledger: Ledger, runs: Path) -> None:
    """Refuse a ledger that does not know a round whose files lie here.

    A whole but older copy of it would pass every check of its own.

    Raises:
        StateError: naming the round.
    """
    booked = facts.rounds(ledger.rows())
    for path in sorted(runs.glob("*/round-*/order")):
        folder = path.parent
        number = int(folder.name.removeprefix("round-"))
        if (folder.parent.name, number) not in booked:
            raise StateError(
                f"{folder} was trained and {ledger.path} does not know it: the ledger is "
                "an older copy; put back the latest one"
            )


def book(
    ledger: Ledger,
    order: Order,
    bundle: Bundle,
    members: Mapping[str, Sequence[str]],
    unit_kind: str,
    limit: Limit,
) -> Booking:
    """Book a round, or find its earlier booking.

    Raises:
        BudgetError: if the rest of the run would exceed the site's limit, or the round
            is booked for another order.
        PolicyError: if the site's data are not those of its cohort.
        StateError: if the ledger cannot be written.
    """
    try:
        cohort = ledger.cohort_for(members, unit_kind)
    except PolicyError:
        if _claimed(order, limit):
            raise
        cohort = ledger.open_cohort(members, unit_kind)  # there is no claim to protect
    asked = ask(order, bundle, cohort, limit)
    return ledger.book(
        asked.entry, limit=asked.limit, delta=asked.delta, ahead=asked.ahead
    )


def rehearse(
    ledger: Ledger | None,
    order: Order,
    bundle: Bundle,
    members: Mapping[str, Sequence[str]],
    unit_kind: str,
    limit: Limit,
) -> float:
    """Epsilon that would be told beside the round, had it been booked; nothing is written.

    Args:
        ledger: of the site; None where nothing was ever booked.
        order: the round.
        bundle: the site's base.
        members: digests of every unit's images.
        unit_kind: what a unit is.
        limit: the site's own.

    Raises:
        VGMedGenError: whatever `book` would have raised.
    """
    rows: Sequence[Row] = ledger.rows() if ledger else ()
    images = sum(map(len, members.values()))
    known = facts.cohorts(rows)
    fresh = Cohort(
        number=len(known) + 1,
        unit=unit_kind,
        units=len(members),
        images=images,
        opened="first",
        time="",
    )
    try:
        cohort = (ledger.cohort_of(members, unit_kind) if ledger else None) or fresh
    except PolicyError:
        if _claimed(order, limit):
            raise
        cohort = fresh
    asked = ask(order, bundle, cohort.number, limit)
    found = decision.decide(rows, cohort, asked)
    if not found:
        raise decision.refusal(rows, cohort, asked)
    if asked.entry.mechanisms is None:
        return 0.0
    more = () if isinstance(found, Booking) else asked.entry.mechanisms
    delta = order.plan.privacy.delta
    return budget.total([facts.everything(rows)], delta, more).epsilon


def ask(order: Order, bundle: Bundle, cohort: int, limit: Limit) -> Asked:
    """What a round asks of a ledger: its own cost, and that of what is still ahead."""
    private = order.plan.privacy.enabled
    plan = PrivacyPlan.of(order.plan) if private else None
    entry = Entry(
        cohort=cohort,
        run=order.run,
        round=order.number,
        stage=order.stage,
        # without DP a changed order may train again: it was infinite before
        order=rounds.order_digest(bundle, order) if private else "",
        plan=order.plan.digest,
        base=bundle.digest,
        mechanisms=plan.round(order.stage) if plan else None,
        clips=_clips(plan, order.stage),
        images=order.plan.privacy.images if private else 0,
        draws=order.plan.privacy.draws if private else 0,
    )
    return Asked(
        entry=entry,
        limit=limit.epsilon,
        delta=limit.delta,
        ahead=_ahead(plan, order) if plan else (),
    )


def _claimed(order: Order, limit: Limit) -> bool:
    return order.plan.privacy.enabled or limit.epsilon > 0


def answer(
    ledger: Ledger, booking: Booking, bench: Workbench, desk: Desk, order: Order
) -> Outcome:
    """Train a booked round, or give its first answer again.

    Raises:
        StateError: if the first answer left the site and is no longer there.
        TrainingError: if training stops.
    """
    path = desk.round_folder(order) / OUTCOME
    private = order.plan.privacy.enabled
    kept = sha256(path) if path.is_file() else None
    if private and booking.replied not in (None, kept):
        raise StateError(
            f"round {order.number} of {order.run} was answered before and {path} is not "
            "that answer any more; a second one is not paid for: restore the file"
        )
    outcome = rounds.train(bench, desk, order)
    if private:
        ledger.reply(booking, sha256(path))
    return outcome


def _ahead(plan: PrivacyPlan, order: Order) -> tuple[Mechanism, ...]:
    """What the run's rounds after this one will cost."""
    left = dict(_rounds(order.plan))
    left[order.stage] -= order.turn
    if order.stage == "generate":
        left["align"] = 0
    return tuple(
        mechanism
        for stage, count in left.items()
        for _ in range(count)
        for mechanism in plan.round(stage)
    )


def _rounds(plan: RunPlan) -> dict[str, int]:
    return {"align": plan.align_rounds, "generate": plan.generate_rounds}


def _clips(plan: PrivacyPlan | None, stage: str) -> tuple[float, ...]:
    if plan is None:
        return ()
    chosen = [t for t in plan.trainings.values() if t.stage == stage]
    return tuple(t.clip for t in sorted(chosen, key=lambda t: t.mechanism))
