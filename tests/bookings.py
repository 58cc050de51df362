"""Bookings that several tests of the ledger make."""

import shutil
from pathlib import Path

from vgmedgen.privacy.accountant import Mechanism
from vgmedgen.privacy.ledger import Booking, Entry, Ledger

DELTA = 1e-5
UNITS = {f"patient-{k}": [f"image-{k}"] for k in range(40)}


def cost(steps: int = 20, noise: float = 5.0) -> tuple[Mechanism, ...]:
    return (Mechanism(noise=noise, rate=0.25, steps=steps),)


def entry(number: int = 1, **changes) -> Entry:
    facts = {
        "cohort": 1,
        "run": "run-a",
        "round": number,
        "stage": "generate",
        "order": "o",
        "plan": "p",
        "base": "b",
        "mechanisms": cost(),
        "clips": (0.01,),
        "images": 2,
        "draws": 4,
    }
    return Entry(**(facts | changes))


def book(ledger: Ledger, one: Entry, limit: float = 8.0, **more) -> Booking:
    return ledger.book(one, limit=limit, delta=more.pop("delta", DELTA), **more)


def fill(folder: Path) -> Ledger:
    """A ledger of seven rows: open, cohort, three stages, two replies."""
    made = Ledger.create(folder, "site-a")
    made.cohort_for(UNITS, "patient")
    for number in (1, 2, 3):
        booking = book(made, entry(number))
        if number < 3:
            made.reply(booking, f"outcome-{number}")
    return made


def copied(template: Path, folder: Path) -> Ledger:
    """A copy of a filled ledger, to damage."""
    shutil.copytree(template, folder)
    return Ledger(folder, "site-a")
