"""What a site's limits mean, in plain sentences, and which of them deserve a thought."""

from dataclasses import fields

from vgmedgen.config.plan import MOST_EPSILON
from vgmedgen.site.config import STAGES, Policy, SiteConfig


def sentences(config: SiteConfig, given: frozenset[str]) -> list[str]:
    """One sentence per limit, in the order of the file; a default is named as such."""
    told = _told(config)
    return [
        f"{told[one.name]}{'' if one.name in given else ' (default)'}"
        for one in fields(Policy)
    ]


def cautions(config: SiteConfig) -> list[str]:
    """What is allowed and should be allowed on purpose only."""
    rules, limit = config.policy, config.privacy.epsilon
    found = {
        "coordinators is empty: unsigned runs are served in a simulation, and no node "
        "starts; copy the 64 digits from coordinator.pub": not rules.coordinators,
        "approval is none: a run of a listed coordinator trains without anybody here "
        "looking at it first": rules.approval == "none",
        "dp is optional and privacy.epsilon is 0: runs without differential privacy "
        "train, and nothing bounds what they tell of a patient": rules.dp == "optional"
        and not limit,
        "dp is required and privacy.epsilon is 0: the ledger refuses every run with "
        "privacy, so no run is served": rules.dp == "required" and not limit,
        "dp is refused and privacy.epsilon is set: the ledger refuses every run without "
        "privacy, so no run is served": rules.dp == "refused" and limit > 0,
        f"epsilon_per_run {rules.epsilon_per_run:g} is above privacy.epsilon {limit:g}, "
        "which the ledger keeps over all runs: it never counts": limit > 0
        and limit < rules.epsilon_per_run < MOST_EPSILON,
        f"min_units is {rules.min_units}: few patients are easier to find again in what "
        "leaves; 20 or more is usual": rules.min_units < 20,  # noqa: PLR2004
        "hours begin where they end: no order is ever served": _empty(rules.hours),
        "stages is empty: no run is served": not rules.stages,
        "runs is empty: no run is served": not rules.runs,
        "dry_run is true: orders are answered by an error code only": rules.dry_run,
        "worse_by is 0: a release that one bad site has spoilt is put to use, as it is "
        "not compared": not rules.worse_by,
        "ungated is true: images that nobody compared with this site's patients may be "
        "taken out": rules.ungated,
        "identified_dicom is true: files with patients' names are read; names never "
        "leave, but nobody checks what is burned into the pixels": rules.identified_dicom,
    }
    return [sentence for sentence, holds in found.items() if holds]


def _told(config: SiteConfig) -> dict[str, str]:
    rules, privacy = config.policy, config.privacy
    keys = ", ".join(key[:16] for key in rules.coordinators)
    total = (
        f"the ledger keeps {privacy.epsilon:g} per unit at delta {privacy.delta:g} over "
        "all runs"
        if privacy.epsilon
        else "the ledger keeps no total, as privacy.epsilon is 0"
    )
    return {
        "coordinators": f"Runs signed by {keys} are served, no others."
        if keys
        else "No coordinator is listed: no node starts.",
        "runs": f"A run's id must match {' or '.join(rules.runs) or 'nothing'}.",
        "stages": _stages(rules),
        "approval": "A run waits until the data officer approves it."
        if rules.approval == "required"
        else "A run needs no approval.",
        "dry_run": "Orders train and show what would leave; nothing is sent."
        if rules.dry_run
        else "What a round trained is sent.",
        "metrics": "Losses may leave, but never under differential privacy."
        if rules.metrics
        else "No loss leaves.",
        "dp": {
            "required": "Only runs with differential privacy are served.",
            "optional": "Runs with and without differential privacy are served.",
            "refused": "Only runs without differential privacy are served.",
        }[rules.dp],
        "epsilon_per_run": f"A run may claim epsilon {rules.epsilon_per_run:g} at most; "
        f"{total}.",
        "min_units": f"Nothing trains on fewer than {rules.min_units} units.",
        "min_heldout": "No held-out loss leaves that was measured on fewer than "
        f"{rules.min_heldout} units.",
        "min_batch": "Without differential privacy a step takes at least "
        f"{rules.min_batch} images.",
        "rounds_per_run": f"A run may have {rules.rounds_per_run} rounds at most.",
        "rounds_per_day": f"At most {rules.rounds_per_day} rounds train on one day.",
        "steps_per_round": f"A round may take {rules.steps_per_round} optimiser steps at "
        "most, all its trainings together.",
        "learning_rate": f"No learning rate may be above {rules.learning_rate:g}.",
        "exchange": f"Only the tensors of schema {rules.exchange[:16]} may leave."
        if rules.exchange
        else "The tensors that may leave are those of this site's base bundle.",
        "hours": f"Orders are served from {rules.hours.replace('-', ' to ')}, local time."
        if rules.hours
        else "Orders are served at any hour.",
        "worse_by": "A release is not put to use whose held-out loss here is more than "
        f"{100 * rules.worse_by:g} % above the base's or that of the one in use."
        if rules.worse_by
        else "A release is put to use however it fares here.",
        "ungated": "Synthetic images may be kept without the release gate, marked as "
        "not cleared."
        if rules.ungated
        else "No synthetic image is kept that the release gate has not compared.",
        "identified_dicom": "DICOM files that name a patient may train."
        if rules.identified_dicom
        else "A DICOM file that names a patient is refused.",
    }


def _stages(rules: Policy) -> str:
    if set(rules.stages) == set(STAGES):
        return "Rounds of both stages, align and generate, are served."
    return f"Only rounds of stage {' or '.join(rules.stages) or 'none'} are served."


def _empty(hours: str) -> bool:
    begin, _, end = hours.partition("-")
    return bool(hours) and begin == end
