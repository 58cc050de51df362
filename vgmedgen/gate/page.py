"""The gate's report as `gate.json` and `gate.html`, which may go with the images."""

import json
from pathlib import Path

from vgmedgen.files import write_text
from vgmedgen.gate.report import Report

JSON, HTML = "gate.json", "gate.html"


def write(report: Report, folder: Path) -> None:
    """Write both into `folder`.

    Raises:
        StateError: if the disk is full or the folder not writable.
    """
    told = json.dumps(report.to_json(), indent=2, allow_nan=False)
    write_text(folder / JSON, told + "\n")
    write_text(folder / HTML, f"<pre>{told}</pre>\n")
