"""What a run found, in plain sentences computed from its numbers, good or bad."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vgmedgen.evaluation.markup import known, mean, plain, size_text

_SHOWN = 0.5  # per cent from which a change of the mean is put in words
GAP_PLACES = 5  # decimals of a caption gap, which is a small part of the loss
CLEAR = 2.0  # a caption gap counts when it is above so many of its spreads

Report = Mapping[str, Any]


def sites_of(report: Report) -> list[str]:
    """Names of all sites: those described first, then any that only has results."""
    names = [str(site.get("name", "?")) for site in report.get("sites") or ()]
    for key in ("heldout_denoising_loss", "caption_gap", "images", "loss_curves"):
        names += [name for name in report.get(key) or {} if name not in names]
    return names


def listing(names: Sequence[str], limit: int = 6) -> str:
    """Names as prose: 'a', 'a and b', 'a, b and 3 others'."""
    if len(names) > limit:
        return f"{', '.join(names[: limit - 1])} and {len(names) - limit + 1} others"
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def count(amount: int, one: str, many: str = "") -> str:
    """'1 site', '4 sites'."""
    return f"{plain(amount, 0)} {one if amount == 1 else many or one + 's'}"


def pairs(
    numbers: Mapping[str, Mapping[str, Any]], first: str, second: str
) -> dict[str, tuple[float, float]]:
    """Site -> (first model's number, second model's), where both were measured."""
    return {
        site: (values[first], values[second])
        for site, values in numbers.items()
        if known(values.get(first)) and known(values.get(second))
    }


def lead(report: Report) -> dict[str, str]:
    """The findings, one sentence per subject; a subject without numbers is left out."""
    sentences = {
        "who": _who(report),
        "heldout": _heldout(report),
        "alone": _alone(report),
        "pooled": _pooled(report),
        "captions": _captions(report),
        "agreement": _agreement(report),
    }
    return {subject: words for subject, words in sentences.items() if words}


def _means(values: Iterable[tuple[float, float]]) -> tuple[float, float]:
    before, after = zip(*values, strict=True)
    return sum(before) / len(before), sum(after) / len(after)


def _who(report: Report) -> str:
    rounds = report.get("rounds") or ()
    counted = [entry for entry in rounds if entry.get("counted", True)]
    names = sites_of(report)
    if not names:
        return ""
    who = f"{count(len(names), 'site')} trained one text-to-image model"
    if len(names) > 1:
        who += " together"
    if rounds:
        who += f" in {count(len(counted), 'round')}"
    sent = mean(
        amount
        for entry in rounds
        for amount in (entry.get("bytes_from") or {}).values()
    )
    if sent is not None:
        who += f"; a site sent {size_text(sent)} of model updates per round on average"
    return f"{who}."


def _heldout(report: Report) -> str:
    found = pairs(report.get("heldout_denoising_loss") or {}, "base", "federated")
    if not found:
        return "How well the model explains held-out images was not measured."
    before, after = _means(found.values())
    better = [site for site, (base, federated) in found.items() if federated < base]
    where = f"of {len(better)} of {len(found)} sites"
    if not better:
        where = "of no site"
    elif len(found) == 1:
        where = f"of {better[0]}, the one site measured,"
    elif len(better) == len(found):
        where = f"of all {len(found)} sites"
    change = (after - before) / before * 100 if before else 0.0
    way = "lower" if change < 0 else "higher"
    size = f", {plain(abs(change), 0)} % {way}" if abs(change) >= _SHOWN else ""
    return (
        f"The federated model explains held-out images {where} better than the "
        "base it started from (mean denoising loss "
        f"{plain(before)} → {plain(after)}{size}; lower is better)."
    )


def _alone(report: Report) -> str:
    others = report.get("others") or {}
    federated, local = others.get("federated") or {}, others.get("local_mean") or {}
    elsewhere = {
        site: (local[site], federated[site])
        for site in local
        if known(local[site]) and known(federated.get(site))
    }
    own = pairs(report.get("heldout_denoising_loss") or {}, "local", "federated")
    clauses = []
    if own:
        clauses.append(f"on a site's own images it is better at {_versus(own)}")
    if elsewhere:
        clauses.append(f"on other sites' images it is better at {_versus(elsewhere)}")
    if not clauses:
        return ""
    return f"Against models that one site trained alone: {'; '.join(clauses)}."


def _versus(found: Mapping[str, tuple[float, float]]) -> str:
    alone, together = _means(found.values())
    better = sum(federated < local for local, federated in found.values())
    where = f"{better or 'none'} of {count(len(found), 'site')}"
    return f"{where} (mean {plain(together)} against {plain(alone)})"


def _pooled(report: Report) -> str:
    losses = report.get("heldout_denoising_loss") or {}
    found = {
        site: values
        for site, values in losses.items()
        if all(known(values.get(model)) for model in ("base", "federated", "pooled"))
    }
    if not found:
        return ""
    base, federated, pooled = (
        sum(values[model] for values in found.values()) / len(found)
        for model in ("base", "federated", "pooled")
    )
    share = ""
    if pooled < base and pooled < federated < base:
        part = 100 * (base - federated) / (base - pooled)
        share = (
            f", so the federation keeps {plain(part, 0)} % of what pooling would gain"
        )
    return (
        f"Training on all images in one place, which the federation avoids, gives "
        f"{plain(pooled)} against {plain(federated)}{share}."
    )


def steering(report: Report) -> tuple[dict[str, float], list[str]]:
    """Federated model's caption gap by site, and the sites where it is not clear."""
    gaps = {
        site: values["federated"]
        for site, values in (report.get("caption_gap") or {}).items()
        if known(values.get("federated"))
    }
    spreads = report.get("caption_gap_spread") or {}
    unclear = []
    for site, gap in gaps.items():
        spread = (spreads.get(site) or {}).get("federated")
        if gap <= (CLEAR * spread if known(spread) else 0.0):
            unclear.append(site)
    return gaps, unclear


def _captions(report: Report) -> str:
    gaps, unclear = steering(report)
    if not gaps:
        return ""
    spreads = report.get("caption_gap_spread") or {}
    spread = mean((spreads.get(site) or {}).get("federated") for site in gaps)
    shown = plain(mean(gaps.values()), GAP_PLACES)
    if spread is not None:
        shown += f" ± {plain(spread, GAP_PLACES)}"
    how = "caption gap" if len(gaps) == 1 else "mean caption gap"
    if not unclear:
        return f"Captions steer it: {how} {shown}."
    if len(unclear) == len(gaps):
        return f"Captions do not visibly steer it: {how} {shown}."
    steered = len(gaps) - len(unclear)
    return f"Captions steer it at {steered} of {len(gaps)} sites: {how} {shown}."


def _agreement(report: Report) -> str:
    rounds = (report.get("alignment") or {}).get("rounds") or ()
    between = (rounds[-1].get("sites") or {}) if rounds else {}
    if not known(between.get("anatomy")) or not known(between.get("style")):
        return ""
    return (
        "Agreement of the sites' visual models on the same held-out images is "
        f"{plain(between['anatomy'], 2)} in anatomy and {plain(between['style'], 2)} "
        "in style (1 is full agreement, 0 is chance)."
    )
