"""What a recording of the whole training says, as findings for the page.

Every question of chance shares one small probability of a false alarm, `FALSE_ALARM`,
divided evenly. Everything else is arithmetic that an honest engine gets right always.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from vgmedgen.audit import hiding, isolation, joining
from vgmedgen.audit.chances import Chance
from vgmedgen.audit.conformance import Finding
from vgmedgen.audit.recording import Recording
from vgmedgen.audit.trainer import one_round
from vgmedgen.audit.whole import Whole, record, trainings
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import TrainingError
from vgmedgen.models.codec import Codec
from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.training.apart import check_models, check_tools
from vgmedgen.training.rounds import Arrays, Workbench
from vgmedgen.training.samples import Samples

FALSE_ALARM = 1e-6  # chance that an honest engine turns any of the questions red
ENOUGH = 64  # steps with which most of what can be wrong with sampling shows
MADE_AGAIN = 8  # samples whose latents and embeddings are made anew
ROUNDING = 1e-3  # clip norms by which two sums of the same gradients may differ
DENOMINATOR = 1e-5  # relative, by which float32 moves a quotient


@dataclass(frozen=True, kw_only=True)
class Most:
    """What is recorded where time is short."""

    units: int  # of the site
    steps: int  # of a round
    rounds: int  # of a stage

    def of(self, plan: RunPlan, samples: Samples) -> tuple[RunPlan, Samples]:
        """The plan cut down, with one image and one draw of each unit, and some units."""
        names = sorted({record.unit for record in samples.records})
        chosen = random.SystemRandom().sample(names, min(self.units, len(names)))
        ask = replace(
            plan.align,
            mapper_steps=min(self.steps, plan.align.mapper_steps),
            prior_steps=min(self.steps, plan.align.prior_steps),
        )
        steps = min(self.steps, plan.generate.steps)
        cut = replace(
            plan,
            align_rounds=min(self.rounds, plan.align_rounds),
            generate_rounds=min(self.rounds, plan.generate_rounds),
            privacy=replace(plan.privacy, images=1, draws=1),
            align=ask,
            generate=replace(plan.generate, steps=steps),
        )
        return cut, samples.of_units(frozenset(chosen))

    def left_out(self) -> str:
        """What is not recorded, in words."""
        return (
            f"of the recorded training more than {self.units} units, {self.rounds} rounds "
            f"of a stage, {self.steps} steps of a round, one image of a unit and one draw"
        )


def examine(
    bench: Workbench,
    start: Mapping[str, Arrays],
    plan: RunPlan,
    samples: Samples,
    *,
    spots: int,
    units: int,
    most: Most | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Finding]:
    """Record the training twice, try it in two worlds, and judge.

    Args:
        bench: models of the site's base, opened for this audit alone.
        start: both groups of the exchange, as the run starts.
        plan: of the run, with DP.
        samples: of the site, that train.
        spots: steps of each round whose gradients are computed again, unit by unit.
        units: whose losses are asked about in two worlds.
        most: cuts the training down; None records all of it, as planned.
        progress: called with words for every round.
    """
    if most is not None:
        plan, samples = most.of(plan, samples)
    longer = lengthened(plan)
    try:
        first = record(bench, start, plan, samples, spots=spots, progress=progress)
        progress("a second training")
        second = record(bench, start, longer, samples, spots=1)
        progress("two worlds")
        leaks = isolation.leaks(bench, start, plan, samples, units=units)
    except TrainingError as error:
        return [_exact("the training runs to its end", [str(error)], "")]
    return [*judge(plan, longer, first, second, leaks), _prepared(bench, samples)]


def _prepared(bench: Workbench, samples: Samples) -> Finding:
    """What the losses read of a sample is made of that sample alone, to the bit."""
    wrong = []
    bundle, rows = bench.bundle, range(min(MADE_AGAIN, len(samples)))
    codec = Codec.load(bundle.part("vae"))
    encoder = TextEncoder.from_folder(
        bundle.part("text_encoder"), bundle.part("tokenizer")
    )
    try:
        check_tools(codec, encoder, bundle.image_px)
        check_models(bench.prior, bench.mapper, bundle.image_px)
    except TrainingError as error:
        wrong.append(str(error))
    # what is kept was made with another count of threads, perhaps, which rounds otherwise
    again = codec.encode(samples.pixels(rows)[0])
    if not torch.allclose(again, samples.latents[: len(rows)], 1e-3, 1e-4):
        wrong.append("latents that are kept are not those of their images")
    again = torch.cat([encoder.embed([samples.captions[row]]) for row in rows])
    if not torch.allclose(again, samples.embeddings[: len(rows)], 1e-3, 1e-4):
        wrong.append("embeddings that are kept are not those of their captions")
    return _exact(
        "a prepared sample is a function of its own record",
        wrong,
        "made alone and made together, latents, embeddings and vectors keep every bit; "
        f"{len(rows)} that are kept are those of their images and captions",
    )


def lengthened(plan: RunPlan) -> RunPlan:
    """One round of each stage, long enough to tell sampling from what is like it."""
    mapper = max(ENOUGH, plan.align.mapper_steps)
    made = one_round(plan, "align", steps=mapper)
    return one_round(made, "generate", steps=max(ENOUGH, plan.generate.steps))


def judge(
    plan: RunPlan,
    longer: RunPlan,
    first: Whole,
    second: Whole,
    leaks: Mapping[str, Sequence[str]],
) -> list[Finding]:
    """Findings of two recordings and of what others' records changed.

    Args:
        plan: of the first recording.
        longer: of the second.
        first: the whole training.
        second: one round of each stage.
        leaks: by training, from `isolation.leaks`.
    """
    asked: list[tuple[str, list[Chance]]] = []
    exact: list[Finding] = []
    for name in trainings(plan):
        both = [[r for r in whole.of(name) if r.steps] for whole in (first, second)]
        every = [*both[0], *both[1]]
        exact.append(_complete(name, plan, longer, both))
        if not both[0] or not both[1]:
            continue
        tables = [
            joining.joins(rounds, whole.units)
            for rounds, whole in zip(both, (first, second), strict=True)
        ]
        rate = plan.privacy.rate
        sampled = [one for table, _ in tables for one in joining.questions(table, rate)]
        sampled.append(joining.between(tables[0][0], tables[1][0], rate))
        asked.append((f"who joins is chance alone ({name})", sampled))
        sized = [one for rounds in both for one in hiding.sizes(rounds)]
        asked.append((f"the noise is there, at every step ({name})", sized))
        reused = [one for rounds in both for one in hiding.reuse(rounds)]
        reused.append(hiding.between(*both))
        asked.append((f"no noise is used twice ({name})", reused))
        faults = [fault for _, found in tables for fault in found]
        exact += [
            _clipped(name, every, faults),
            _secret(name, every),
            _divided(name, every),
            _followed(name, every),
            _apart(name, leaks.get(name, ["the training was not seen"])),
        ]
    exact.append(_answered([*first.faults, *second.faults]))
    limit = FALSE_ALARM / max(1, sum(len(found) for _, found in asked))
    return [_by_chance(name, found, limit) for name, found in asked] + exact


def _by_chance(name: str, found: Sequence[Chance], limit: float) -> Finding:
    """Red where a result is rarer than `limit`."""
    rare = [one for one in found if one.value < limit]
    shown = rare or [min(found, key=lambda one: one.value)]
    words = "; ".join(
        f"{one.question}: {one.detail} (chance {one.value:.1g})" for one in shown[:4]
    )
    return Finding(
        name=name,
        passed=not rare,
        told=words if rare else f"{len(found)} questions; the rarest answer: {words}",
        recorded=True,
    )


def _complete(
    name: str, plan: RunPlan, longer: RunPlan, both: Sequence[Sequence[Recording]]
) -> Finding:
    """Every round and step that the plan has, and no other, was seen whole."""
    wrong = []
    for which, rounds in zip((plan, longer), both, strict=True):
        wanted = trainings(which)[name]
        if len(rounds) != wanted:
            wrong.append(
                f"{len(rounds)} of {wanted} rounds took a step that was recorded"
            )
        for one in rounds:
            if len(one.steps) != one.terms.steps:
                wrong.append(
                    f"round {one.round} took {len(one.steps)} steps, the plan says "
                    f"{one.terms.steps}"
                )
            if one.error or not all(step.shown for step in one.steps):
                wrong.append(f"round {one.round}: {one.error or 'a step is not shown'}")
    steps = sum(len(one.steps) for rounds in both for one in rounds)
    return _exact(
        f"every step is the plan's ({name})", wrong, f"{steps} steps recorded"
    )


def _clipped(name: str, rounds: Sequence[Recording], faults: list[str]) -> Finding:
    wrong, off = list(faults), max(step.off for one in rounds for step in one.steps)
    if not off <= ROUNDING:
        wrong.append(
            f"a step's sum is {off:.2g} clip norms away from that of gradients that are "
            "each clipped whole"
        )
    again = max(one.wrong for one in rounds)
    if not again <= ROUNDING:
        wrong.append(
            f"computed again, one unit at a time, a step's sum is {again:.2g} clip norms "
            "away"
        )
    spots = sum(one.spots for one in rounds)
    return _exact(
        f"each unit is clipped whole and counted once ({name})",
        wrong,
        f"sums are {off:.1e} clip norms off at most; {spots} steps computed again one "
        f"unit at a time, {again:.1e}",
    )


def _secret(name: str, rounds: Sequence[Recording]) -> Finding:
    """Nothing is added to a sum but what the secret gave out for it."""
    added = max(step.added for one in rounds for step in one.steps)
    wrong = f"what is added to a sum is {added:.2g} deviations away from such noise"
    return _exact(
        f"the noise is the secret's, and nothing else is added ({name})",
        [] if added <= ROUNDING else [wrong],
        f"at most {added:.1e} deviations away from it",
    )


def _divided(name: str, rounds: Sequence[Recording]) -> Finding:
    lows = [step.divided[0] for one in rounds for step in one.steps]
    highs = [step.divided[1] for one in rounds for step in one.steps]
    expected = rounds[0].terms.expected
    kept = all(abs(value / expected - 1) <= DENOMINATOR for value in [*lows, *highs])
    seen = f"from {min(lows):.6g} to {max(highs):.6g}, the plan says {expected:.6g}"
    return _exact(
        f"the sum is divided by a public constant ({name})",
        [] if kept else [f"it is divided by {seen}"],
        seen,
    )


def _followed(name: str, rounds: Sequence[Recording]) -> Finding:
    """A second optimiser that sees the releases alone goes the very same way."""
    drift = max(
        *(step.drift for one in rounds for step in one.steps),
        *(one.end_drift for one in rounds),
    )
    return _exact(
        f"weights move by noised sums alone ({name})",
        [] if drift == 0 else [f"weights are {drift:.2g} away from what these make"],
        "a second optimiser that saw nothing else came to the same bits",
    )


def _apart(name: str, leaks: Sequence[str]) -> Finding:
    return _exact(
        f"others' records change nothing for a unit ({name})",
        leaks,
        "with every other record replaced, loss and gradient keep every bit",
    )


def _answered(faults: Sequence[str]) -> Finding:
    return _exact(
        "answers are made of noised sums alone",
        faults,
        "every tensor that a round sends follows from its public start and its steps",
    )


def _exact(name: str, wrong: Iterable[str], right: str) -> Finding:
    faults = list(dict.fromkeys(wrong))
    more = f"; {len(faults) - 3} more" if len(faults) > 3 else ""  # noqa: PLR2004
    told = "; ".join(faults[:3]) + more if faults else right
    return Finding(name=name, passed=not faults, told=told, recorded=True)
