"""One round in one line, as `run` and the log show it."""

from statistics import fmean

from server.registry import RoundRecord
from vgmedgen.config.plan import PrivacyConfig


def line(record: RoundRecord, privacy: PrivacyConfig) -> str:
    """Who took part, who was left out or held to the bound, and what it came to."""
    total = len(record.sites) + len(record.left_out)
    parts = [
        f"round {record.number} {record.stage}: {len(record.sites)} of {total} sites"
    ]
    if record.left_out:
        named = ", ".join(f"{name} ({code})" for name, code in record.left_out.items())
        parts.append(f"left out {named}")
    if record.bounded:
        named = ", ".join(
            f"{name} ({times:g} times the others' size)"
            for name, times in record.bounded.items()
        )
        parts.append(f"held to the bound {named}")
    if not record.counted:
        parts.append("not counted, the weights stay")
    elif privacy.enabled:
        parts.append(_spent(record, privacy))
    else:
        parts += _losses(record)
    return ", ".join([*filter(None, parts), f"{record.seconds:.1f} s"])


def _losses(record: RoundRecord) -> list[str]:
    """Both losses: the one that a site trains by says nothing of what it was sent."""
    told = {"loss": record.loss, "held-out loss": record.heldout_loss}
    return [f"{name} {fmean(v.values()):.4f}" for name, v in told.items() if v]


def _spent(record: RoundRecord, privacy: PrivacyConfig) -> str:
    if not record.epsilon:
        return ""
    level = "image-level" if privacy.unit == "image" else f"per {privacy.unit}"
    return (
        f"epsilon spent at most {max(record.epsilon.values()):.3g} ({level}, delta "
        f"{privacy.delta:g}, by the ledger of the site that spent most, all its runs)"
    )
