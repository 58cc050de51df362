"""Freezes what crosses a hospital's wall: a change here needs a line under Privacy."""

import numpy as np

from vgmedgen.exchange import schema
from vgmedgen.exchange.schema import ExchangeSchema
from vgmedgen.exchange.wire import DOWN, UP, Kind

GOLDEN = """
protocol 5, tensors float16, flat, sorted by name

every order has these words, and those below
  base coordinator exchange plan plan-digest protocol run signature

down query.hello
  order    nothing more
down train
  order    round stage turn
  weights  mapper lora
down evaluate
  order    round stage turn
  weights  mapper lora
down query.install
  order    manifest release-signature round stage turn
  weights  mapper lora

up   query.hello
  origin   base exchange ledger run site version
up   train
  origin   base exchange ledger round run site stage
  numbers  num-units loss-sum epsilon-spent
  with DP  num-units epsilon-spent, and so without DP where the site withholds losses
  update   align: mapper, generate: lora
up   evaluate
  origin   base exchange round run site stage
  numbers  num-units loss-sum epsilon-spent
  with DP  nothing: it is neither asked nor answered
up   query.install
  origin   base exchange release round run site stage

any error
  code 100 and VG[0-9]{2}

at most
  num-units 1000000
  loss-sum 1000000000
  epsilon-spent 1000
"""

PRIVATE = {
    Kind.TRAIN: " ".join(schema.numbers_of(True))
    + ", and so without DP where the site withholds losses",
    Kind.EVALUATE: "nothing: it is neither asked nor answered",
}

DIGEST = "ee4a17f853d1c6aa1e2b6072952013d09d8c47496ca9fee2df3b78bdc30dbac8"


def told():
    shared = DOWN[Kind.HELLO].words
    lines = [
        f"protocol {schema.PROTOCOL}, tensors {schema.DTYPE}, flat, sorted by name",
        "",
        "every order has these words, and those below",
        f"  {' '.join(sorted(shared))}",
    ]
    for name, forms in (("down", DOWN), ("up", UP)):
        lines.append("")
        for kind in Kind:
            form = forms[kind]
            lines.append(f"{name:<4} {kind}")
            more = form.words - shared if form.record == "order" else form.words
            words = " ".join(sorted(more)) or "nothing more"
            lines.append(f"  {form.record:<8} {words}")
            if form.numbers:
                lines.append(
                    f"  {form.numbers:<8} {' '.join(schema.numbers_of(False))}"
                )
                lines.append(f"  with DP  {PRIVATE[kind]}")
            if form.arrays == "weights":
                lines.append(f"  {form.arrays:<8} {' '.join(schema.DOWNLINK)}")
            elif form.arrays:
                what = ", ".join(
                    f"{s}: {', '.join(g)}" for s, g in schema.UPLINK.items()
                )
                lines.append(f"  {form.arrays:<8} {what}")
    lines += ["", "any error", f"  code {schema.SITE_ERROR} and {schema.CODE}"]
    lines += ["", "at most"]
    lines += [f"  {name} {limit:.0f}" for name, limit in schema.LIMITS.items()]
    return "\n".join(["", *lines, ""])


def test_what_crosses_is_what_was_agreed():
    assert told() == GOLDEN


def test_the_digest_that_both_sides_compare_does_not_change_by_itself():
    toy = ExchangeSchema.of(
        {
            "mapper": {"anatomy_net.0.weight": np.zeros((2, 3))},
            "lora": {"dit.to_q.A": np.zeros((1, 2)), "dit.to_q.B": np.zeros((2, 1))},
        }
    )
    assert toy.digest == DIGEST
