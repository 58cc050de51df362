"""What a release may tell of its run: a closed form for every fact, and no other fact.

A model card is made of them and is read by people and by model hubs, so no fact may be
able to say more than its name promises.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, TypeGuard

from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import ReleaseError

FORM = 2
"""How this version words the card, names the facts and lays out the files of a release.

Every site compares bytes, so whatever changes one of them for the same tensors and facts
raises it: a site then says that the versions differ, and not that "files differ".
"""
STARTS = (1, 5, 10, 20, 50, 100, 200, 500, 1000)  # of the ranges of units
RANGES = (
    *(f"{low}-{high - 1}" for low, high in pairwise(STARTS)),
    f"{STARTS[-1]}+",
)
METRICS = ("training_loss", "heldout_loss")
GIVEN = ("run", "experiment", "config", "sites", "data", "metrics", "privacy")
DERIVED = (
    "form",
    "base",
    "base_licence",
    "base_source",
    "image_px",
    "plan",
    "exchange",
    "rounds",
    "align_rounds",
    "generate_rounds",
)
"""What `write` adds of itself, the base and the plan; given or not, it is theirs."""
_ABSENT = ("data", "metrics", "privacy")  # may be missing
_FIGURES = 4  # significant ones of a metric
_DIGEST = "[0-9a-f]{64}"
_WORDS = {
    "run": "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "experiment": r"[A-Za-z0-9][A-Za-z0-9 ._:-]{0,79}",
    "config": _DIGEST,
    "base": _DIGEST,
    "plan": _DIGEST,
    "exchange": _DIGEST,
    "base_licence": r"[A-Za-z0-9 .,:;/()+_-]{0,200}",
    "base_source": r"[A-Za-z0-9 .,:;/()+_-]{0,200}",
}
_SITE = "[a-z0-9-]{1,40}"
_MOST_SITES = 1000
_LARGEST = 1e9
_MOST_FORM = 999  # that a message quotes


def range_of(units: float) -> str:
    """The range that a number of units is told as, such as 20-49.

    Raises:
        ValueError: if there is no unit.
    """
    if not units >= 1:
        raise ValueError(f"{units} units lie in no range")
    return RANGES[bisect_right(STARTS, units) - 1]


def is_run(name: object) -> bool:
    """Whether this is a run's name."""
    return isinstance(name, str) and re.fullmatch(_WORDS["run"], name) is not None


def plain(text: object) -> str:
    """A text of a base bundle, less every character that a page would act on."""
    kept = re.sub(r"[^A-Za-z0-9 .,:;/()+_-]+", " ", str(text))
    return " ".join(kept.split())[:200]


def given(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a coordinator gives, metrics rounded as a release tells them."""
    told = {name: fact for name, fact in facts.items() if name not in DERIVED}
    metrics = told.get("metrics")
    if isinstance(metrics, Mapping):
        told["metrics"] = {name: _rounded(value) for name, value in metrics.items()}
    return told


def check_form(told: Mapping[str, Any]) -> None:
    """Accept only what is written as this version writes it, before a fact is judged.

    Raises:
        ReleaseError: saying which version is the older one.
    """
    form = told.get("form")
    if type(form) is int and form == FORM:
        return
    it, newer = "does not tell the form it is written in", False
    if type(form) is int and 0 <= form <= _MOST_FORM:
        it, newer = f"is written in form {form}", form > FORM
    older = "the one that made the release, and ask for it anew"
    if newer:
        older = "this one, then start again"
    raise ReleaseError(
        f"the release {it}, this software reads form {FORM}; update the older of the two, "
        f"{older}"
    )


def check(told: Mapping[str, Any], plan: RunPlan) -> None:
    """Accept facts of the closed forms that agree with the plan.

    Args:
        told: the manifest, with its files or without.
        plan: of the run.

    Raises:
        ReleaseError: naming the fact; the form before any other.
    """
    check_form(told)
    names = set(told) - {"files"}
    if unknown := sorted(names - set(GIVEN) - set(DERIVED)):
        raise _wrong(plain(unknown[0])[:40], "no release tells that")
    if missing := sorted({*GIVEN, *DERIVED} - set(_ABSENT) - names):
        raise _wrong(missing[0], "is missing")
    for name, form in _WORDS.items():
        if not isinstance(told[name], str) or not re.fullmatch(form, told[name]):
            raise _wrong(name, "has not the form that it must have")
    sites = told["sites"]
    whole = isinstance(sites, list) and 1 <= len(sites) <= _MOST_SITES
    if not whole or sites != sorted({site for site in sites if _is_site(site)}):
        raise _wrong("sites", "is no sorted list of pseudonyms")
    rounds = plan.align_rounds, plan.generate_rounds
    _same(told, plan.digest, "plan")
    _same(told, rounds[0], "align_rounds")
    _same(told, rounds[1], "generate_rounds")
    _same(told, sum(rounds), "rounds")
    if type(told["image_px"]) is not int or not 1 <= told["image_px"] <= 2**16:
        raise _wrong("image_px", "is no size of an image")
    _check_data(told)
    _check_metrics(told, plan)
    _check_privacy(told, plan)


def _check_data(told: Mapping[str, Any]) -> None:
    data = told.get("data", {})
    listed = isinstance(data, dict) and set(data) <= set(told["sites"])
    if not listed or not all(value in RANGES for value in data.values()):
        raise _wrong("data", "is not a range of units for each site")


def _check_metrics(told: Mapping[str, Any], plan: RunPlan) -> None:
    metrics = told.get("metrics", {})
    if not isinstance(metrics, dict) or not set(metrics) <= set(METRICS):
        raise _wrong("metrics", f"may only be {', '.join(METRICS)}")
    if metrics and plan.privacy.enabled:
        raise _wrong("metrics", "must not be told under differential privacy")
    if not all(_is_number(v) and v == _rounded(v) for v in metrics.values()):
        raise _wrong("metrics", f"is not in numbers of {_FIGURES} figures")


def _check_privacy(told: Mapping[str, Any], plan: RunPlan) -> None:
    ask, claim = plan.privacy, told.get("privacy")
    promised = {"epsilon": ask.epsilon, "delta": ask.delta, "unit": ask.unit}
    kept = claim is None and "privacy" not in told
    if ask.enabled:
        claim = claim if isinstance(claim, dict) else {}
        kept = {n: v for n, v in claim.items() if n != "spent"} == promised
        kept = kept and isinstance(claim.get("spent"), dict)
        kept = kept and all(
            _is_site(site) and _is_number(value)
            for site, value in claim["spent"].items()
        )
    if not kept:
        raise ReleaseError(
            "the release claims another privacy than the run's plan; nothing was installed"
        )


def _is_site(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(_SITE, name) is not None


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= _LARGEST  # so it is finite too


def _rounded(value: object) -> object:
    return float(f"{value:.{_FIGURES}g}") if _is_number(value) else value


def _same(told: Mapping[str, Any], wanted: object, name: str) -> None:
    if type(told[name]) is not type(wanted) or told[name] != wanted:
        raise _wrong(name, "is not that of the run's plan")


def _wrong(name: str, what: str) -> ReleaseError:
    return ReleaseError(
        f"a fact of the release is not in order: {name} {what}; nothing was installed, "
        "ask the coordinator for the release anew"
    )
