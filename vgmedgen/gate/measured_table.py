"""The part of the gate's page that says what a gate finds and what it misses."""

from collections.abc import Sequence

from vgmedgen.evaluation.markup import DASH, Html, note, plain, section, table
from vgmedgen.gate.measured import Measured

NAMES = {"busi": "BUSI", "ham10000": "HAM10000", "kvasir-seg": "Kvasir-SEG"}


def finds_and_misses(found: Sequence[Measured]) -> Html:
    """Every kind of copy that was measured, misses included."""
    if not found:
        return Html()
    kinds = list(dict.fromkeys(kind for one in found for kind in one.found))
    head = ("Kind of copy", *(f"{NAMES[one.dataset]} {one.px}" for one in found))
    dates = sorted({one.date for one in found})
    rows = [
        (kind[0].upper() + kind[1:], *(_part(one, kind) for one in found))
        for kind in kinds
    ]
    foot = ("False alarms, of images of others", *(_alarms(one) for one in found))
    promised = ("Promised at most", *(_percent(one.promised) for one in found))
    return section(
        "measured",
        "What a gate finds, and what it misses",
        note(
            "Measured on published images, not on this site's: a gate of each set and "
            "image size (px) was shown copies that it had to find among "
            f"{_between([one.training for one in found])} training images, "
            f"{_between([one.copies for one in found])} of each kind, and images of "
            "patients or lesions that it did not know, without "
            f"{sum(one.scenes for one in found)} that by eye show the scene of a training "
            "image. The gate was drafted on the same sets, so the table may flatter it. "
            f"Measured {dates[-1]}."
        ),
        table(
            "Share of copies held back, in percent. Sides and shifts are shares of the "
            "picture's side, noise is in grey levels",
            head,
            [*rows, foot, promised],
        ),
    )


def _part(one: Measured, kind: str) -> str:
    return _percent(one.found[kind] / one.copies) if kind in one.found else DASH


def _alarms(one: Measured) -> str:
    seen = one.alarms
    limits = f"{plain(100 * seen.low, 1)} to {plain(100 * seen.high, 1)}"
    return f"{_percent(seen.value)} ({limits})"


def _percent(share: float) -> str:
    value = 100 * share
    return plain(value, 0 if value == round(value) else 1)


def _between(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return plain(low, 0) if low == high else f"{plain(low, 0)} to {plain(high, 0)}"
