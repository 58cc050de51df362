"""What a run asks of a site, laid out for the person who decides about it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client import policy
from client.approvals import Ask
from client.policy import Verdict
from client.request import Request
from client.standing import table
from vgmedgen.config.load import plan_from_json
from vgmedgen.config.plan import RunPlan
from vgmedgen.exchange.schema import UPLINK, ExchangeSchema, numbers_of
from vgmedgen.exchange.wire import Kind
from vgmedgen.privacy import budget
from vgmedgen.privacy.ledger import FILE as LEDGER
from vgmedgen.privacy.ledger import Ledger
from vgmedgen.privacy.plan import PrivacyPlan
from vgmedgen.privacy.statement import statement
from vgmedgen.site.folder import Site

BYTES = 2  # of a float16


def laid_out(ask: Ask, folder: Path, *, every_tensor: bool = False) -> list[str]:
    """All that an approval would allow, as lines.

    Args:
        ask: what the run asks for.
        folder: of the site.
        every_tensor: list each by name, not only the groups.

    Raises:
        BaseError: if the site's base bundle cannot be opened: then nobody can say what
            would leave.
        ConfigError: if the plan cannot be read.
        DataError: if the site's data cannot be read.
    """
    site, plan = Site(folder), plan_from_json(ask.said["plan"])
    schema = site.schema(plan)
    base, exchange = ask.said["base"], ask.said["exchange"]
    return [
        f"run {ask.run}, asked on {ask.at[:16].replace('T', ' ')} UTC",
        f"coordinator  {ask.said['coordinator'] or 'nobody: the run is not signed'}",
        f"plan         {ask.said['plan-digest']}",
        f"base         {base[:16]}{_same(base, site.base_digest)}",
        f"exchange     {exchange[:16]}{_same(exchange, schema.digest)}",
        "",
        *_rounds(plan),
        "",
        *_privacy(plan, site),
        "",
        *_leaving(schema, plan, site.policy.metrics, every_tensor),
        "",
        *_verdicts(ask, plan, site),
        "",
        "the whole plan:",
        *_table(sorted(_flat(asdict(plan)))),
    ]


def _same(asked: str, own: str) -> str:
    return ", this site's own" if asked == own else f", but this site has {own[:16]}"


def _rounds(plan: RunPlan) -> list[str]:
    align, generate = plan.align, plan.generate
    prior = "the visual prior stays the base bundle's"
    if policy.trains_prior(plan):
        prior = f"{align.prior_steps} of the visual prior at {align.prior_rate:g}"
    mapper = f"{align.mapper_steps} steps of the text mapper at {align.mapper_rate:g}"
    lora = f"{generate.steps} steps of LoRA at {generate.learning_rate:g}"
    rows = [
        ("align", f"{plan.align_rounds} rounds", f"{mapper}, {prior}"),
        ("generate", f"{plan.generate_rounds} rounds", f"{lora}, rank {generate.rank}"),
    ]
    return ["what trains here:", *_table(rows)]


def _privacy(plan: RunPlan, site: Site) -> list[str]:
    ask = plan.privacy
    if not ask.enabled:
        return ["privacy: none is promised to the patients by this run"]
    head = (
        f"privacy: epsilon {ask.epsilon:g} for each {ask.unit} at delta {ask.delta:g} over "
        "all its rounds"
    )
    limit = site.privacy
    if (site.folder / LEDGER).is_file():
        book = Ledger.read(site.folder, site.name)
        found = statement(book, limit=limit.epsilon, delta=limit.delta, plan=plan)
        lines = list(found["for"]["told"])
        after = found["for"].get("after", {}).get("epsilon")
    else:
        alone = budget.spent(PrivacyPlan.of(plan).whole(), limit.delta)
        after = alone.epsilon
        verdict = "it fits" if after <= limit.epsilon else "the ledger would refuse it"
        beside = f"delta {limit.delta:g}, accountant {alone.accountant}"
        lines = [
            "nothing is spent here yet",
            f"that run: epsilon {budget.rounded(after)} ({beside}): {verdict}",
        ]
    if limit.epsilon and after is not None:
        left = math.floor(max(0.0, limit.epsilon - after) * 1000) / 1000
        lines.append(f"left of the limit {limit.epsilon:g} after it: {left:g}")
    return [head, *(f"  {line}" for line in lines)]


def _leaving(
    schema: ExchangeSchema, plan: RunPlan, metrics: bool, every_tensor: bool
) -> list[str]:
    lines = ["what leaves, once per round:"]
    for stage, groups in UPLINK.items():
        rounds = plan.align_rounds if stage == "align" else plan.generate_rounds
        for group in groups:
            specs = schema.groups[group]
            lines.append(
                f"  {stage:<9} group {group}: {len(specs)} tensors, "
                f"{BYTES * schema.size(group)} bytes at most, {rounds} times"
            )
            if every_tensor:
                rows = [
                    (spec.name, "x".join(map(str, spec.shape)), str(BYTES * spec.size))
                    for spec in specs
                ]
                lines += [f"  {line}" for line in _table(rows)]
    numbers = numbers_of(plan.privacy.enabled or not metrics)
    lines.append(f"  numbers   {', '.join(numbers)}")
    lines.append("  ledger    how many rounds were ever booked here, and a keyed code")
    if not every_tensor:
        lines.append("  (--tensors lists every tensor with its shape and bytes)")
    return lines


def _verdicts(ask: Ask, plan: RunPlan, site: Site) -> list[str]:
    request = Request(kind=Kind.HELLO, words=ask.words, plan=plan)
    found = policy.verdicts(site.policy, site.privacy, request, site.units)
    if site.policy.coordinators:
        found.insert(0, _coordinator(ask, site.policy.coordinators))
    rows = [
        ("✓" if one.kept else "✗", one.rule, one.asked, f"(policy: {one.allowed})")
        for one in found
    ]
    lines = ["against this site's policy:", *_table(rows)]
    if not all(one.kept for one in found):
        lines.append("  what is marked ✗ is refused here, whatever is approved")
    return lines


def _coordinator(ask: Ask, trusted: Sequence[str]) -> Verdict:
    key = ask.said["coordinator"]
    return Verdict(
        rule="coordinators",
        asked=f"signed by {key[:16] or 'nobody'}",
        allowed=", ".join(one[:16] for one in trusted),
        kept=key in trusted,
    )


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{name}.")
        else:
            rows.append((f"{before}{name}", str(value)))
    return rows


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"  {line}" for line in table(rows)]
