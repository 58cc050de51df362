"""The audit as one page that needs no other file."""

from collections.abc import Sequence
from pathlib import Path

from vgmedgen.audit.canaries import Canaries
from vgmedgen.audit.conformance import Finding
from vgmedgen.audit.copies import SHOWN
from vgmedgen.audit.figures import file_picture, picture, two_histograms
from vgmedgen.audit.membership import Membership
from vgmedgen.audit.recorded import FALSE_ALARM
from vgmedgen.audit.statistics import Interval, OneRun
from vgmedgen.audit.texts import GLOSSARY, UNSEEN, WORDS
from vgmedgen.audit.verdict import Evidence, Verdict
from vgmedgen.config.plan import RunPlan
from vgmedgen.evaluation import markup
from vgmedgen.evaluation.markup import (
    Html,
    document,
    glossary,
    join,
    note,
    number,
    plain,
    section,
    table,
    tag,
)


def page(site: str, plan: RunPlan, found: Evidence, verdict: Verdict) -> str:
    """The page as HTML, with style, figures and images inside."""
    title = f"Privacy audit of {site}"
    style = markup.verdict_style(Path(__file__).with_name("audit.css"))
    parts = (
        _top(title, found, verdict),
        _checks(found),
        _canaries(found),
        _membership(found),
        _recovered(found),
        _copies(found),
        _twins(found),
        section("unseen", "What no audit of this kind finds", *_unseen()),
        glossary(GLOSSARY),
    )
    foot = tag(
        "footer",
        tag("h2", "Where this page comes from"),
        tag("p", f"Plan {plan.digest}. All numbers, unrounded, are in audit.json."),
    )
    return document(title, style, tag("main", *parts), foot)


def _top(title: str, found: Evidence, verdict: Verdict) -> Html:
    why = tag("ul", *(tag("li", reason) for reason in verdict.reasons))
    box = tag(
        "div",
        tag("span", f"{verdict.colour}: {WORDS[verdict.colour]}", class_="word"),
        tag("p", tag("strong", verdict.headline), class_="lead"),
        why if verdict.reasons else "",
        class_=f"verdict {verdict.colour}",
    )
    care = tag(
        "aside",
        tag("h2", "Read with care"),
        tag("ul", *(tag("li", caution) for caution in verdict.cautions)),
        class_="care",
    )
    return tag(
        "header",
        tag(
            "p", "For this hospital only: nothing on this page leaves it", class_="over"
        ),
        tag("h1", title),
        box,
        _figures(found, verdict),
        care,
    )


def _figures(found: Evidence, verdict: Verdict) -> Html:
    passed = sum(one.passed for one in found.conformance)
    claim = found.claim
    terms = "no claim" if claim is None else f"claimed epsilon, {claim.terms()}"
    tiles: list[tuple[object, str]] = [
        (number(claim.epsilon if claim else None, 2), terms),
        (number(verdict.proven, 2), "epsilon that the strongest attack proves"),
    ]
    if found.conformance:
        tiles.append((f"{passed} of {len(found.conformance)}", "checks of the engine"))
    if found.membership:
        best = max(one.auc.value for one in found.membership)
        tiles.append((number(best, 2), "highest AUC of membership; 0.5 is a coin"))
    if found.copies is not None:
        tiles.append(
            (
                f"{found.copies.flagged} of {found.copies.images}",
                "synthetic images flagged as near copies",
            )
        )
    shown = (tag("li", tag("b", value), tag("span", words)) for value, words in tiles)
    return tag("ul", *shown, class_="figures")


def _checks(found: Evidence) -> Html:
    title = "Does the engine do what the claim assumes?"
    if not found.conformance:
        return section("checks", title, note("Not checked: this run claims nothing."))
    heads = ("Check", "", "Seen")
    whole = (
        "The site's own training as the plan has it, on its own patients (a quick audit: "
        "the part that is named above), recorded in memory and thrown away. Questions of "
        "chance share one false alarm in "
        f"{1 / FALSE_ALARM:,.0f} audits."
    )
    single = "Steps that a training seldom shows, such as one that nobody joins."
    parts = []
    for words, about, recorded in (
        ("The whole training, as it ran", whole, True),
        ("Single steps on made-up units", single, False),
    ):
        rows = _rows([one for one in found.conformance if one.recorded == recorded])
        if rows:
            parts += [
                tag("h3", words),
                note(about),
                table("What failed stands first", heads, rows, words=(0, 1, 2)),
            ]
    return section("checks", title, note("One failure, and no epsilon holds."), *parts)


def _rows(findings: Sequence[Finding]) -> list[tuple[object, ...]]:
    """Failures first."""
    ordered = sorted(findings, key=lambda one: one.passed)
    return [
        (
            one.name,
            tag("span", "ok", class_="ok")
            if one.passed
            else tag("span", "FAILED", class_="fail"),
            one.told,
        )
        for one in ordered
    ]


def _canaries(found: Evidence) -> Html:
    rows = (
        (
            one.training,
            number(one.steps, 0),
            number(one.proven.total, 0),
            f"{_best(one).correct} of {_best(one).guesses}",
            _of(one.proven.epsilon, one.ceiling, one.cost),
            _of(one.curve.epsilon if one.curve else None, one.curve_ceiling, one.cost),
            number(one.cost, 2),
        )
        for one in found.canaries
    )
    heads = (
        "Training",
        "Steps",
        "Canaries",
        "Guessed right",
        "Proves, of any mechanism (ceiling)",
        "Proves, of this kind of noise (ceiling)",
        "The plan gives it",
    )
    return section(
        "canaries",
        "Planted canaries",
        note(
            "Made-up units far from all data, each planted with probability 1/2 in a "
            "copy of the training under the plan's noise. The attacker sees every step "
            "and guesses which were planted. The first bound holds whatever the engine "
            "does (Steinke, Nasr and Jagielski 2023); the second if it differs from the "
            "plan by its noise alone (Mahloujifar, Melis and Chaudhuri 2024). In brackets "
            "the ceiling: what perfect guesses would prove. Where that is amber, it lies "
            "below what the plan gives this training, and these canaries can refute "
            "nothing."
        ),
        table("One training each; the models were thrown away", heads, rows),
        tag("div", *map(_planted, found.canaries), class_="twins"),
    )


def _best(one: Canaries) -> OneRun:
    """The guesses behind the larger of the two bounds."""
    both = [one.proven] if one.curve is None else [one.curve, one.proven]
    return max(both, key=lambda bound: bound.epsilon)


def _of(bound: float | None, ceiling: float | None, cost: float | None) -> Html:
    """A bound with its ceiling, amber where that lies below the claim."""
    if bound is None or ceiling is None:
        return number(None, 2)
    low = cost is not None and ceiling < cost
    words = f"({plain(ceiling, 2)})"
    shown = tag("span", words, class_="warn" if low else None)
    return join([plain(bound, 2), " ", shown])


def _planted(one: Canaries) -> Html:
    pairs = list(zip(one.scores, one.included, strict=True))
    return two_histograms(
        [score for score, here in pairs if here],
        [score for score, here in pairs if not here],
        ("planted", "left out"),
        f"score of a canary in the training '{one.training}', by share of canaries",
    )


def _interval(found: Interval) -> str:
    return f"{plain(found.value, 3)} ({plain(found.low, 3)} to {plain(found.high, 3)})"


def _membership(found: Evidence) -> Html:
    rows = (
        (
            f"{one.attack}, {one.model}",
            f"{one.members} / {one.others}",
            _interval(one.auc),
            _interval(one.found),
            _interval(one.control),
            number(one.epsilon, 2),
        )
        for one in found.membership
    )
    heads = (
        "Losses of, model",
        "Units in / out",
        "AUC",
        "TPR at 1 % FPR",
        "AUC of the base (control)",
        "Proves epsilon of at least",
    )
    if not found.membership:
        return section("membership", "Membership", note("Not run."))
    return section(
        "membership",
        "Can losses tell who trained?",
        note(
            "Score of a unit: its loss under the untouched base minus its loss under "
            "the model. If training left no trace, both curves lie on each other."
        ),
        table("With 95 % intervals over units", heads, rows),
        tag("div", *map(_who, found.membership), class_="twins"),
    )


def _who(one: Membership) -> Html:
    return two_histograms(
        one.scores[0],
        one.scores[1],
        ("trained on", "held out"),
        f"score of a unit by its {one.attack}, {one.model}",
    )


def _recovered(found: Evidence) -> Html:
    rows = []
    for one in found.recovered:
        shown = [picture(one.original, "original", "as the image codec keeps it")]
        shown.append(
            picture(one.open, "without DP", _match(one.open_match, one.open_psnr))
        )
        told = _match(one.guarded_match, one.guarded_psnr)
        shown.append(picture(one.guarded, "with DP", told))
        rows.append(tag("div", *shown, class_="triple"))
    return section(
        "recovered",
        "What comes back from one update?",
        note(
            "The attacker's best case: one unit in the step; start weights, caption, "
            "timestep and noise known; the gradient itself seen. He searches for an "
            "image with the same gradient, once without DP and once with the clip and "
            "noise of the plan. These are real patients of this site."
        ),
        *rows,
    )


def _match(correlation: float | None, peak: float | None) -> str:
    if correlation is None:
        return ""
    return f"correlation {plain(correlation, 2)}, PSNR {plain(peak, 1)} dB"


def _copies(found: Evidence) -> Html:
    one = found.copies
    title = "Are synthetic images copies?"
    if one is None:
        return section("copies", title, note("Not run: there are no synthetic images."))
    pairs = (
        tag(
            "figure",
            file_picture(pair.synthetic, synthetic=True),
            file_picture(pair.training, synthetic=False),
            tag(
                "figcaption",
                tag("span", "FLAGGED ", class_="fail") if pair.flagged else "",
                f"{pair.synthetic.name}, nearest of unit {pair.unit}; distance "
                f"{plain(pair.distance, 3)}",
            ),
            class_="pair",
        )
        for pair in one.worst
    )
    return section(
        "copies",
        title,
        note(
            "Distance of each synthetic image, mirrored or not, to the nearest training "
            "image, free of tint and contrast. The dashed line is as near as the "
            f"nearest {plain(100 * one.expected, 1)} % of held-out images come."
        ),
        tag(
            "p",
            f"{one.flagged} of {one.images} flagged: {plain(100 * one.share.value, 1)} % "
            f"(95 % interval {plain(100 * one.share.low, 1)} to "
            f"{plain(100 * one.share.high, 1)}); chance of as many if they were like "
            f"held-out images: {plain(one.chance, 3)}.",
        ),
        two_histograms(
            one.distances[0],
            one.distances[1],
            ("synthetic", "held out"),
            "distance to the nearest training image, by share of images",
            mark=one.threshold,
        ),
        tag("h3", "The nearest pairs"),
        tag("div", *pairs, class_="pairs"),
    )


def _twins(found: Evidence) -> Html:
    title = "Held-out images that also trained"
    if not found.twins:
        return section(
            "twins", title, note("None: no held-out image shows a training image.")
        )
    rows = (
        (one.heldout.name, one.unit, one.training.name, one.other, number(one.alike, 2))
        for one in found.twins
    )
    heads = ("Held out", "of unit", "Trained", "of unit", "Alike, of 1")
    pairs = (
        tag(
            "figure",
            file_picture(one.heldout, synthetic=False),
            file_picture(one.training, synthetic=False),
            tag("figcaption", f"{one.heldout.name} and {one.training.name}"),
            class_="pair",
        )
        for one in found.twins[:SHOWN]
    )
    return section(
        "twins",
        title,
        note(
            "The same picture, mirrored, turned, cropped or alike, under two names. They "
            "are left out of membership and of the comparison with copies. Find and join "
            "such units with `vgmedgen data twins`: a patient in two units is protected "
            "half as well."
        ),
        tag("div", *pairs, class_="pairs"),
        table("All of them", heads, rows, words=(0, 1, 2, 3)),
    )


def _unseen() -> list[Html]:
    return [
        note("Each of these can break a claim while this page is green."),
        tag(
            "ul",
            *(tag("li", tag("b", what), f" {why}") for what, why in UNSEEN.items()),
        ),
    ]
