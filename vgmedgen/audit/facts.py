"""Everything behind the audit's page, as plain values for JSON."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vgmedgen.audit.verdict import Evidence, Verdict
from vgmedgen.config.plan import RunPlan


def facts(
    site: str, plan: RunPlan, found: Evidence, verdict: Verdict
) -> dict[str, Any]:
    """Everything behind the page, as plain JSON values."""
    told: dict[str, Any] = {"site": site, "plan": plan.digest}
    told["verdict"] = dataclasses.asdict(verdict)
    for name in ("claim", "planned", "conformance", "membership", "canaries", "copies"):
        told[name] = _values(getattr(found, name))
    told["twins"] = _values(list(found.twins))
    told["recovered"] = _values(
        [
            {f.name: getattr(one, f.name) for f in dataclasses.fields(one)}
            for one in found.recovered
        ]
    )
    told["skipped"] = list(found.skipped)
    return told


def _values(value: object) -> Any:  # noqa: ANN401  # JSON
    """Plain values; pictures are left out, and what is not finite becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _values(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {
            str(key): _values(entry)
            for key, entry in value.items()
            if not isinstance(entry, Tensor)
        }
    if isinstance(value, list | tuple):
        return [_values(entry) for entry in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
