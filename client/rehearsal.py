"""A dry run: trains as asked and shows the hospital what would have left; nothing does.

The coordinator gets an error code and, unavoidably, sees how long the site took.
"""

import json
from datetime import datetime
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict

from client.answers import trained
from client.contract import Site
from client.egress import checked
from client.request import Request
from client.runfiles import PRIVATE, named
from vgmedgen.exchange.schema import Specs
from vgmedgen.exchange.wire import UP, Kind, size
from vgmedgen.files import write_text
from vgmedgen.training.order import Order

FOLDER = "dry-run"


def show(
    message: Message, request: Request, order: Order, site: Site, now: datetime
) -> None:
    """Train for the hospital's eyes, and write `dry-run/<run>/round-NNNN.json`.

    An order that comes again is not trained again.

    Args:
        message: the train order.
        request: the same, as the policy looks at it.
        order: the same, as training looks at it.
        site: whose patients train.
        now: by the site's own clock.

    Raises:
        VGMedGenError: whatever would have refused the round, or its answer.
    """
    folder = site.folder / FOLDER
    path = folder / named(order.run) / f"round-{order.number:04d}.json"
    if (
        path.is_file()
        and json.loads(path.read_text(encoding="utf-8"))["order"] == request.digest
    ):
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    outcome = site.rehearse(order)
    content = checked(message, trained(message, site, order, outcome), site)
    told = {
        "run": order.run,
        "round": order.number,
        "stage": order.stage,
        "at": now.isoformat(timespec="seconds"),
        "order": request.digest,
        "sent": "nothing but an error code; this is what would have left",
        "records": _records(content, order, site),
        "bytes": size(content),
    }
    write_text(path, json.dumps(told, indent=2))


def _records(content: RecordDict, order: Order, site: Site) -> dict[str, Any]:
    form = UP[Kind.TRAIN]
    arrays = content.array_records[form.arrays]
    listed = site.schema(order.plan).up(order.stage, order.factor)
    return {
        form.record: dict(content.config_records[form.record]),
        form.numbers: dict(content.metric_records[form.numbers]),
        form.arrays: {
            group: _tensors(array.numpy(), listed[group], order, group)
            for group, array in arrays.items()
        },
    }


def _tensors(
    flat: np.ndarray, specs: Specs, order: Order, group: str
) -> dict[str, Any]:
    before = [order.weights[group][spec.name].reshape(-1) for spec in specs]
    change = flat.astype(np.float64) - np.concatenate(before)
    return {
        "bytes": flat.nbytes,
        "l2": float(np.linalg.norm(flat.astype(np.float64))),
        "l2-of-change": float(np.linalg.norm(change)),
        "tensors": [
            {
                "name": spec.name,
                "shape": list(spec.shape),
                "bytes": flat.itemsize * spec.size,
            }
            for spec in specs
        ],
    }
