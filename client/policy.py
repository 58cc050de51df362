"""Holds a run against the hospital's own limits.

Every rule is looked at by itself and says what was asked and what is allowed, so that
the same rules refuse a message and tell the data officer where a run stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from fnmatch import fnmatchcase

from client.request import Request
from vgmedgen.config.plan import MOST_EPSILON, RunPlan
from vgmedgen.errors import NotNowError, PolicyError
from vgmedgen.exchange.wire import Kind
from vgmedgen.site.config import Policy, SitePrivacy


@dataclass(frozen=True, kw_only=True)
class History:
    """What a site holds, and what it has done."""

    units: int = 0  # that train
    today: frozenset[tuple[str, int]] = frozenset()  # (run, round) trained today
    repeated: bool = False  # this very order was answered before: it trains nothing


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One rule of site.yaml, and whether what is asked keeps it."""

    rule: str  # its key
    asked: str
    allowed: str
    kept: bool


def check(
    policy: Policy,
    privacy: SitePrivacy,
    request: Request,
    history: History,
    now: datetime,
) -> None:
    """Accept a request that keeps every limit of the hospital.

    A hello is held against all that the run will ever ask, so that a site says at once
    that it will not take part; hours and days are for the moment of an order only.

    Args:
        policy: of the site.
        privacy: of the site.
        request: what a message asks.
        history: what the site holds and has done.
        now: by the site's own clock, with its zone.

    Raises:
        NotNowError: outside the hours, or when the day's rounds are used up.
        PolicyError: for any other limit.
    """
    found = verdicts(policy, privacy, request, history.units)
    found += _of_this_message(policy, request)
    for verdict in found:
        if not verdict.kept:
            raise PolicyError(
                _refusal(
                    request.run,
                    verdict,
                    "the run has to ask for less, or the hospital to allow more",
                )
            )
    for verdict in _of_this_moment(policy, request, history, now):
        if not verdict.kept:
            raise NotNowError(
                _refusal(
                    request.run, verdict, "it is served again when its time comes"
                ),
                why="hours" if verdict.rule == "hours" else "rounds",
            )


def verdicts(
    policy: Policy, privacy: SitePrivacy, request: Request, units: int
) -> list[Verdict]:
    """Every rule that concerns a run as a whole.

    Args:
        policy: of the site.
        privacy: of the site.
        request: any message of the run.
        units: of the site that train.
    """
    plan = request.plan
    rounds = plan.align_rounds + plan.generate_rounds
    steps = {stage: sum(_steps(plan)[stage].values()) for stage in _steps(plan)}
    most_steps = max((steps[stage] for stage in policy.stages), default=0)
    rates = _rates(plan, policy)
    return [
        Verdict(
            rule="runs",
            asked=f"the id {request.run}",
            allowed=", ".join(policy.runs) or "none",
            kept=any(fnmatchcase(request.run, pattern) for pattern in policy.runs),
        ),
        Verdict(
            rule="stages",
            asked="align and generate",
            allowed=" and ".join(policy.stages) or "none",
            kept=bool(
                policy.stages
            ),  # rounds of a stage that is not listed are left out
        ),
        _dp(policy, plan),
        *_epsilon(policy, privacy, plan),
        Verdict(
            rule="min_units",
            asked=f"training on the {units} units here",
            allowed=f"at least {policy.min_units}",
            kept=units >= policy.min_units,
        ),
        *_batches(policy, plan),
        _at_most("rounds_per_run", rounds, policy.rounds_per_run, "rounds"),
        _at_most(
            "steps_per_round", most_steps, policy.steps_per_round, "steps in a round"
        ),
        *(
            _at_most("learning_rate", rate, policy.learning_rate, f"as {name}")
            for name, rate in rates.items()
        ),
        Verdict(
            rule="exchange",
            asked=f"to exchange {request.words['exchange'][:12]}",
            allowed=policy.exchange[:12] or "the schema of this site's base",
            kept=policy.exchange in ("", request.words["exchange"]),
        ),
    ]


def within_hours(hours: str, now: time) -> bool:
    """Whether a time of the day lies in hours such as 20:00-06:00, the end not in them.

    Hours that begin where they end are none.
    """
    if not hours:
        return True
    begin, end = (time.fromisoformat(part) for part in hours.split("-"))
    if begin <= end:
        return begin <= now < end
    return now >= begin or now < end


def trains_prior(plan: RunPlan) -> bool:
    """Under DP the visual prior may be the base bundle's, which nobody trains."""
    return not plan.privacy.enabled or plan.privacy.prior == "private"


def _of_this_message(policy: Policy, request: Request) -> list[Verdict]:
    found = []
    if request.kind in (Kind.TRAIN, Kind.EVALUATE):
        found.append(
            Verdict(
                rule="stages",
                asked=f"a round of stage {request.stage}",
                allowed=" and ".join(policy.stages),
                kept=request.stage in policy.stages,
            )
        )
    if request.kind is Kind.EVALUATE:
        found.append(
            Verdict(
                rule="metrics",
                asked="for a held-out loss",
                allowed="true" if policy.metrics else "false: no loss leaves",
                kept=policy.metrics,
            )
        )
    return found


def _of_this_moment(
    policy: Policy, request: Request, history: History, now: datetime
) -> list[Verdict]:
    if request.kind is Kind.HELLO:
        return []
    found = [
        Verdict(
            rule="hours",
            asked=f"work at {now:%H:%M}",
            allowed=policy.hours or "always",
            kept=within_hours(policy.hours, now.time()),
        )
    ]
    if request.kind is Kind.TRAIN and not history.repeated:
        others = history.today - {(request.run, request.number)}
        count = len(others) + 1
        found.append(
            _at_most("rounds_per_day", count, policy.rounds_per_day, "rounds today")
        )
    return found


def _batches(policy: Policy, plan: RunPlan) -> list[Verdict]:
    """Without DP an update of few images at a time is almost each of them."""
    if plan.privacy.enabled:
        return []
    asked = {"align": plan.align.batch, "generate": plan.generate.batch}
    return [
        Verdict(
            rule="min_batch",
            asked=f"{asked[stage]} images a step as {stage}.batch",
            allowed=f"at least {policy.min_batch}",
            kept=asked[stage] >= policy.min_batch,
        )
        for stage in policy.stages
    ]


def _dp(policy: Policy, plan: RunPlan) -> Verdict:
    on = plan.privacy.enabled
    kept = {"required": on, "refused": not on, "optional": True}[policy.dp]
    return Verdict(
        rule="dp",
        asked=f"training {'with' if on else 'without'} differential privacy",
        allowed=policy.dp,
        kept=kept,
    )


def _epsilon(policy: Policy, privacy: SitePrivacy, plan: RunPlan) -> list[Verdict]:
    ask = plan.privacy
    if not ask.enabled:
        return []
    found = [
        _at_most(
            "epsilon_per_run",
            ask.epsilon,
            policy.epsilon_per_run,
            f"as epsilon for each {ask.unit} at delta {ask.delta:g}",
        )
    ]
    if policy.epsilon_per_run < MOST_EPSILON:
        # an epsilon at a larger delta would be larger at the site's own
        found.append(
            _at_most(
                "epsilon_per_run",
                ask.delta,
                privacy.delta,
                "as the delta at which it counts epsilon (privacy.delta)",
            )
        )
    return found


def _steps(plan: RunPlan) -> Mapping[str, Mapping[str, int]]:
    """Steps of every training, by stage: those that really happen."""
    align = {"mapper": plan.align.mapper_steps}
    if trains_prior(plan):
        align["prior"] = plan.align.prior_steps
    return {"align": align, "generate": {"lora": plan.generate.steps}}


def _rates(plan: RunPlan, policy: Policy) -> Mapping[str, float]:
    rates: dict[str, float] = {}
    if "align" in policy.stages:
        rates["align.mapper_rate"] = plan.align.mapper_rate
        if trains_prior(plan):
            rates["align.prior_rate"] = plan.align.prior_rate
    if "generate" in policy.stages:
        rates["generate.learning_rate"] = plan.generate.learning_rate
    return rates


def _at_most(rule: str, asked: float, limit: float, what: str) -> Verdict:
    return Verdict(
        rule=rule,
        asked=f"{asked:g} {what}",
        allowed=f"at most {limit:g}",
        kept=asked <= limit,
    )


def _refusal(run: str, verdict: Verdict, todo: str) -> str:
    return (
        f"run {run} asks {verdict.asked}; policy.{verdict.rule} in site.yaml is "
        f"{verdict.allowed}; {todo}"
    )
