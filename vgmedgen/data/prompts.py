"""Captions from elsewhere: the medvlsm prompts as a captions csv.

Source: Poudel et al., github.com/naamiinepal/medvlsm, json lists in `data/*/anns`.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vgmedgen.data.tables import write_rows
from vgmedgen.errors import DataError

BUSI = re.compile(r"(\d+)_(benign|malignant|normal)(\.\w+)?")


def from_medvlsm(files: Iterable[Path], prompt: str = "p6") -> list[tuple[str, str]]:
    """Pairs of image name and caption, in the order of the files.

    Args:
        files: JSON lists of entries with `img_name` or `segment_id` and `prompts`.
        prompt: Which prompt to take; of several alternatives the first is taken.

    Raises:
        DataError: if a file is malformed or lacks that prompt for an image.
    """
    pairs = []
    for path in files:
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            for entry in entries:
                name = str(entry.get("img_name") or entry["segment_id"])
                told = entry["prompts"][prompt]
                text = str(told if isinstance(told, str) else told[0]).strip()
                if not text:
                    raise DataError(
                        f"{path}: prompt '{prompt}' of '{name}' is empty; take another"
                    )
                pairs.append((published_name(name), text))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{path} is not a medvlsm json with prompt '{prompt}' "
                f"({type(error).__name__}: {error}); choose another file or prompt"
            ) from error
    return pairs


def published_name(name: str) -> str:
    """BUSI's own file name for medvlsm's: "100_benign.png" is "benign (100).png"."""
    renamed = BUSI.fullmatch(name)
    if not renamed:
        return name
    number, label, suffix = renamed.groups()
    return f"{label} ({number}){suffix or ''}"


def write_captions(path: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Write the csv (columns image, caption) that adapters take as captions."""
    write_rows(path, ("image", "caption"), pairs)
